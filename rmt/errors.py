"""The one base of every error that is a user's to mend: the command line prints it as a single line, no traceback."""


class UserError(Exception):
    """A mistake or a missing thing; the message names it, the place and the remedy in one line."""
