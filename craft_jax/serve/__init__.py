"""A local model over HTTP: a CLIP behind the forms that hosted ones are asked in and our own, or a tuned one's labels.

`craft_jax.serve` as a command is the way in; the extra `serve` has what it needs.
"""
