"""Measurements that anyone can rerun."""

import os

# One process measures the memory of another: neither may take the whole accelerator in advance.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
