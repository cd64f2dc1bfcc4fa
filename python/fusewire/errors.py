"""The one error that tells a user what to change."""


class InputError(ValueError):
    """What the user gave cannot be used; the message says what was expected and what to do.

    The command line prints it as one line and ends with exit code 2.
    """


class ToldError(InputError):
    """What another process of the run has told already; the command line does not say it again."""
