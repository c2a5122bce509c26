"""The command `python -m craft_jax.predict`; everything else of it is in `prediction`."""

import sys

from craft_jax.cli import exit_on_user_error
from craft_jax.prediction import main

if __name__ == "__main__":
    exit_on_user_error(main, sys.argv)
