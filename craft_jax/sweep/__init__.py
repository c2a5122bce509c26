"""Many runs and what they add up to: the plan, the runner, processes side by side, protocols, tables.

`python -m craft_jax.sweep` is the way in.
"""
