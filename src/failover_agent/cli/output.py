"""What people see: sentences, tables and colours. The only place that prints."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

from failover_agent.errors import FailoverAgentError

WIDTH = 80

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}


@dataclass(frozen=True, slots=True)
class Paint:
    """Colours; `is_on` only where a terminal shows them and NO_COLOR does not forbid it."""

    is_on: bool = False

    @classmethod
    def of(cls, stream: TextIO) -> Paint:
        """The colours that `stream` can show."""
        wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        return cls(wanted and stream.isatty())

    def __call__(self, text: str, *styles: str) -> str:
        """`text` in `styles`; padding must be done before."""
        if not self.is_on or not styles:
            return text
        return f"\x1b[{';'.join(_CODES[style] for style in styles)}m{text}\x1b[0m"


def paint() -> Paint:
    """The colours of stdout."""
    return Paint.of(sys.stdout)


def say(text: str) -> None:
    """A line for the reader, or for the next program."""
    print(text)


def redraw(text: str) -> None:
    """`text` in place of what the terminal shows; below it, where it is no terminal."""
    if sys.stdout.isatty():
        text = f"\x1b[H\x1b[2J{text}"
    print(text, flush=True)


def complain(error: FailoverAgentError | str) -> None:
    """What went wrong, on stderr, without a traceback."""
    print(Paint.of(sys.stderr)(clean_lines(str(error)), "red"), file=sys.stderr)


def clean(text: object) -> str:
    """One printable line: names and details come from engines and peers."""
    return printable(" ".join(str(text).split()))


def clean_lines(text: str) -> str:
    """Each line printable."""
    return "\n".join(map(printable, text.splitlines()))


def printable(line: str) -> str:
    """`line` without what would command a terminal."""
    return "".join(mark if mark.isprintable() else "?" for mark in line)


def paragraph(text: str, indent: str = "", hanging: str | None = None) -> str:
    """`text` within WIDTH; lines after the first begin with `hanging`."""
    return textwrap.fill(
        clean(text),
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent if hanging is None else hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )


def columns(rows: Sequence[Sequence[str]], indent: str = "  ") -> list[str]:
    """Rows as lines whose columns stand below each other; the last column is cut at WIDTH."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]) - 1)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        lines.append(cut(indent + "  ".join([*cells, row[-1]]).rstrip()))
    return lines


def cut(text: str, width: int = WIDTH) -> str:
    """`text`, ending in "..." where it is too long."""
    return text if len(text) <= width else f"{text[: width - 3].rstrip()}..."


def length(seconds: float) -> str:
    """A length of time as people say it, two units at most."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < 120:
        return f"{whole} s"
    for unit, size, below, divisor in (
        ("min", 60, "s", 1),
        ("h", 3600, "min", 60),
        ("d", 86400, "h", 3600),
    ):
        limit = {"min": 3600, "h": 86400}.get(unit)
        if limit is None or whole < limit:
            count, rest = whole // size, whole % size // divisor
            return f"{count} {unit}" + (f" {rest} {below}" if rest and count < 10 else "")
    raise AssertionError(whole)
