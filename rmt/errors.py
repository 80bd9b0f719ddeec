"""The one base of every error that is a user's to mend: the command line prints it as a single line, no traceback."""

import difflib
from collections.abc import Iterable
from pathlib import Path


class UserError(Exception):
    """A mistake or a missing thing; the message names it, the place and the remedy in one line."""

    status = 2
    """Exit status of the process."""


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or the valid names when none is close."""
    names = [str(candidate) for candidate in valid]
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; valid: {', '.join(names)}"


def shown(path: Path) -> str:
    """A path for records and pages: relative to the working folder if it lies below it, the user's home as `~`."""
    whole = path.absolute()
    for base, prefix in ((Path.cwd(), ""), (Path.home(), "~/")):
        if whole.is_relative_to(base):
            return f"{prefix}{whole.relative_to(base)}"
    return str(path)
