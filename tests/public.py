"""The public class that the towers are tested against, where the installed transformers has it."""

import pytest


def flax_clip_model():
    """transformers' FlaxCLIPModel; the test is skipped where it is not there, as in version 5."""
    import transformers

    if not hasattr(transformers, "FlaxCLIPModel"):
        pytest.skip(f"transformers {transformers.__version__} has no FlaxCLIPModel")
    return transformers.FlaxCLIPModel
