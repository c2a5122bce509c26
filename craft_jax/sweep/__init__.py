"""Many runs and what they add up to: the plan, the runner, protocols, tables.

`processes` spreads runs over one machine, `engines` over Slurm's or Ray's. `python -m craft_jax.sweep` is the way in.
"""
