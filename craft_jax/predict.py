"""The command `python -m craft_jax.predict`; everything else of it is in `prediction`."""

import sys

from craft_jax.cli import exit_on_user_error
from craft_jax.prediction import main, predict

if __name__ == "__main__":
    exit_on_user_error(main, sys.argv)
else:
    # Python binds what it finds here to `craft_jax.predict`, which is the function's name.
    sys.modules[__name__] = predict  # type: ignore[assignment]
