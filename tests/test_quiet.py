"""Other libraries' loggers are kept quiet where this program speaks for them, and nowhere else."""

import logging

import jax.numpy as jnp
import transformers

from craft_jax import blackbox, training
from craft_jax.errors import silenced
from craft_jax.training import checkpoints
from craft_jax.tuned_model import TunedModel


def test_blocks_that_overlap_give_a_logger_its_level_back():
    logger = logging.getLogger("of.another.library")
    logger.setLevel(logging.INFO)
    first, second = silenced("of.another.library"), silenced("of.another.library", logging.ERROR)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)

    assert not logger.isEnabledFor(logging.WARNING)
    second.__exit__(None, None, None)
    assert logger.level == logging.INFO


def test_a_loaded_model_and_a_closed_checkpoint_leave_loggers_as_they_were(tmp_path):
    names = ("absl", "transformers", "huggingface_hub", "jax._src.callback")
    transformers.logging.get_verbosity()  # sets it at its first use
    before = {name: logging.getLogger(name).level for name in names}
    black_box = blackbox.load("bundled", ("pizza", "crab"))
    with checkpoints.Checkpoints(tmp_path) as kept:
        assert not logging.getLogger("absl").isEnabledFor(logging.ERROR)
        kept.save(1, {"z": jnp.zeros(2)}, TunedModel(jnp.zeros(2), {}, black_box.identity, ("pizza", "crab")), {}, 0.5)

    assert {name: logging.getLogger(name).level for name in names} == before
    assert (tmp_path / training.checkpoints.CHECKPOINTS / "1").is_dir()
