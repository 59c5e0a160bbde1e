"""The one exception the package raises for what a user can mend."""


class Problem(Exception):
    """Something a user can mend.

    Its text is one line that says what is wrong and what to do; callers print it
    and exit non-zero, never with a traceback.
    """
