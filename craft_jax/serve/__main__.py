"""The command `python -m craft_jax.serve`; everything else of it is in `command`."""

import sys

from craft_jax.cli import exit_on_user_error
from craft_jax.serve.command import main

exit_on_user_error(main, sys.argv)
