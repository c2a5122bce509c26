"""The exceptions that entry points turn into a single line and an exit status.

From Python they are a plain `ValueError` and a plain `Exception`.
"""

RESUMABLE = 75
"""Exit status of a run that stopped early and that the same command resumes: EX_TEMPFAIL of sysexits.h."""


class UserError(ValueError):
    """Bad input. The message names the setting or file, what was found, and the remedy."""


class Interrupted(Exception):
    """A run stopped early because it was asked to. The message says where it stands; the same command resumes it."""
