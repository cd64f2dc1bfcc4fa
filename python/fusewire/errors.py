"""The one error that tells a user what to change."""


class InputError(ValueError):
    """What the user gave cannot be used; the message says what was expected and what to do.

    The command line prints it as one line and ends with exit code 2.
    """
