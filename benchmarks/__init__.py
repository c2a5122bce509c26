"""Measurements that anyone can rerun; `python -m benchmarks` lists them."""

import os
import sys

from benchmarks import command

command.answer(sys.orig_argv)  # here, as the benchmark imports what takes seconds

from craft_jax.cli import pay_compilation_once  # noqa: E402

# One process measures the memory of another: neither may take the whole accelerator in advance.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
pay_compilation_once()  # here, as JAX reads the settings when it is imported
