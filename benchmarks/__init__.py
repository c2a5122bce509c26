"""Measurements that anyone can rerun."""

import os

from craft_jax.cli import pay_compilation_once

# One process measures the memory of another: neither may take the whole accelerator in advance.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
pay_compilation_once()  # here, as JAX reads the settings when it is imported
