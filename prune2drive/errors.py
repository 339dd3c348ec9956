"""The one exception for everything a user can get wrong."""


class InputError(ValueError):
    """A bad file, option or value: one line that says what is wrong, where, and what to do.

    `run.py` prints the message alone, without a traceback.
    """
