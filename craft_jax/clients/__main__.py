"""The command `python -m craft_jax.clients`; everything else of it is in `command`."""

import sys

from craft_jax.cli import RESUMES, exit_on_user_error
from craft_jax.clients.command import main

exit_on_user_error(main, sys.argv, interrupted=RESUMES)
