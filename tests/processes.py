"""How the tests, and the processes that they start, set XLA up."""

import importlib.metadata
import os

# Compiling takes most of the time here: what XLA's slower passes gain at these sizes is less than what they cost.
QUICK = ["--xla_backend_optimization_level=0"]
if importlib.metadata.version("jaxlib").startswith("0.10."):  # newer ones refuse these
    QUICK += ["--xla_cpu_parallel_codegen_split_count=1", "--xla_cpu_use_fusion_emitters=false"]


def xla_flags(devices):
    """XLA_FLAGS for so many simulated devices and quick compilation."""
    return " ".join([f"--xla_force_host_platform_device_count={devices}", *QUICK])


def environment(devices=1, **more):
    """This process's environment for one that sees `devices` simulated devices, with `more` variables."""
    return os.environ | {"XLA_FLAGS": xla_flags(devices)} | more
