"""The one base of every error that is a user's to mend: the command line prints it as a single line, no traceback."""

import argparse
import difflib
import sys
from collections.abc import Iterable, Sequence
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


def run_verb(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    """Run the verb of a command line, the function that its parser has set as `call`; returns the exit status, which is
    the function's own if it returns one.

    A user's mistake, or a file that is not there, is printed on stderr as `error: ...`; notes on it come first.
    """
    options = parser.parse_args(arguments)
    try:
        return options.call(options) or 0
    except UserError as error:
        print(f"error: {''.join(getattr(error, '__notes__', []))}{error}", file=sys.stderr)
        return error.status
    except FileNotFoundError as error:
        print(f"error: {error.filename}: no such file", file=sys.stderr)
        return UserError.status
