"""Several owners of images tune together and share none: splits, trust, what is exchanged, simulation, report.

`client` makes what leaves one, `privacy` makes less of it, `strategy` orders the exchange, here or by `flower`; those
who search are in `searching/`. `python -m craft_jax.clients` is the way in. Source: Wagner, Fan and Jaggi, COLM 2024.
"""
