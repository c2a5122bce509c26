"""Several owners of images tune together and share none: splits, trust, what is exchanged, simulation, report.

Those who share sums are `closed_form` and, over a network, `flower`; those who search are in `searching/`.
`python -m craft_jax.clients` is the way in. Source: Wagner, Fan and Jaggi, COLM 2024; docs/clients.md.
"""
