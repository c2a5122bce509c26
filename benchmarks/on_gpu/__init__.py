"""The parts of `python -m benchmarks.gpu`, each a section of it. Nothing here needs a Flax model or a network."""
