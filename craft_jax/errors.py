"""The one exception for mistakes that a user can mend.

Entry points turn it into a single line and a non-zero exit; from Python it is a plain `ValueError`.
"""


class UserError(ValueError):
    """Bad input. The message names the setting or file, what was found, and the remedy."""
