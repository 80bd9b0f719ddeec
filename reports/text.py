"""Numbers and tables as Markdown text (GitHub-flavoured)."""

import math
import re
from collections.abc import Iterable, Sequence

MISSING = "missing"
NOTHING = "–"
MINUS = "\N{MINUS SIGN}"


def points(value: float | None, decimals: int = 1) -> str:
    """A signed difference in percentage points, `+3.2` or `−0.4`; no sign on zero."""
    if value is None or math.isnan(value):
        return NOTHING
    text = f"{abs(value):.{decimals}f}"
    if float(text) == 0:
        return text
    return f"{'+' if value > 0 else MINUS}{text}"


def p_value(p: float) -> str:
    """`0.031`, `<0.001`, or a dash where nothing was tested."""
    if math.isnan(p):
        return NOTHING
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def interval(low: float, high: float) -> str:
    """`[+1.1, +5.3]` in points, or a dash."""
    return NOTHING if math.isnan(low) or math.isnan(high) else f"[{points(low)}, {points(high)}]"


def seconds(value: float) -> str:
    """A duration in seconds with two significant digits or none after the point: `0.02`, `1.5`, `13`."""
    if value < 0.005:
        return "<0.01"
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def size(value: float) -> str:
    """Bytes as B, kB or MB (powers of 1000)."""
    if value < 1000:
        return f"{value:.0f} B"
    return f"{value / 1e3:,.1f} kB" if value < 1e6 else f"{value / 1e6:,.1f} MB"


def spread(values: Iterable[float], show: str = "{:,.0f}") -> str:
    """Smallest to largest value as `a–b`, or the one value."""
    found = sorted(values)
    if not found:
        return NOTHING
    low, high = show.format(found[0]), show.format(found[-1])
    return low if low == high else f"{low}–{high}"


def spread_of_sizes(values: Iterable[int]) -> str:
    """Smallest to largest number of bytes."""
    found = sorted(values)
    if not found:
        return NOTHING
    low, high = size(found[0]), size(found[-1])
    return low if low == high else f"{low}–{high}"


def listed(names: Sequence[str], last: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    return f" {last} ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def count(number: int, noun: str, plural: str | None = None) -> str:
    """`1 run`, `3 runs`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def ordinal(number: int) -> str:
    """`1st`, `2nd`, `11th`."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def escaped(text: str) -> str:
    """Text that is safe inside a table cell and is not taken for markup."""
    # An underscore inside a word is no markup and stays as it is.
    return " ".join(re.sub(r"[\\|*`<>]|(?<!\w)_|_(?!\w)", r"\\\g<0>", text).split())


def code(text: str) -> str:
    """Text in code style, safe inside a table cell."""
    return f"`{text.replace('`', '').replace('|', chr(92) + '|')}`"


def table(header: Sequence[str], body: Iterable[Sequence[str]], left: int = 1) -> str:
    """A Markdown table; the first `left` columns are aligned left, the numbers after them right."""
    lines = [header, [":---" if column < left else "---:" for column in range(len(header))], *body]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
