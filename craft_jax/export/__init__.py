"""A tuned model for programs without craft_jax: class weights for a known CLIP, and a whole jax.export program."""

from craft_jax.export.classifier import Classifier, classifier_of
from craft_jax.export.program import program

__all__ = ["Classifier", "classifier_of", "program"]
