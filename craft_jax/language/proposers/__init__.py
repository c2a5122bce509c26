"""Who proposes texts: a language model, or a library whose words are changed; and what is made of a model's replies."""
