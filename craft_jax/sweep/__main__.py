"""The command `python -m craft_jax.sweep`; everything else of it is in `command`."""

import sys

from craft_jax.cli import RESUMES, exit_on_user_error
from craft_jax.sweep.command import main

exit_on_user_error(main, sys.argv, interrupted=RESUMES)
