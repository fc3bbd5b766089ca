"""How a table looks: the command, the machine and the date above it, medians and maxima in it."""

import os
import platform
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median

from failover_agent import __version__


def print_head(*notes: str) -> None:
    """What was run, where, and when."""
    program = Path(sys.argv[0])
    command = f"bench/{program.name} {' '.join(sys.argv[1:])}".rstrip()
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    print(f"$ PYTHONPATH=. .venv/bin/python {command}")
    print(
        f"failover-agent {__version__}, Python {platform.python_version()}, Linux"
        f" {platform.release()}, {os.cpu_count()} cores ({_processor()}), load before {load},"
        f" {time.strftime('%Y-%m-%d %H:%M')}"
    )
    for note in notes:
        print(note)
    print(flush=True)


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """The first column to the left, the others to the right; as Markdown has it."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]

    def show(cells: Sequence[str]) -> None:
        first, *others = (
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        print("| " + " | ".join([first, *others]) + " |")

    show(lines[0])
    print(
        "|"
        + "|".join([":" + "-" * (widths[0] + 1), *("-" * (n + 1) + ":" for n in widths[1:])])
        + "|"
    )
    for line in lines[1:]:
        show(line)
    print(flush=True)


def ms(seconds: Sequence[float]) -> str:
    """Median and, in brackets, the longest; in milliseconds."""
    if not seconds:
        return "-"
    return f"{1000 * median(seconds):.0f} ({1000 * max(seconds):.0f})"


def seconds(values: Sequence[float]) -> str:
    """Median and, in brackets, the longest; in seconds."""
    return f"{median(values):.2f} ({max(values):.2f})" if values else "-"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
