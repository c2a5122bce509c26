"""Many runs and what they add up to: the plan, the runner, processes or a cluster's jobs, protocols, tables.

`python -m craft_jax.sweep` is the way in.
"""
