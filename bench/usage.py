"""What a process has used, by the kernel's own accounts."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Usage:
    """Since its start: seconds on a processor, in nanosecond steps, and how often it was woken."""

    processor_s: float
    wakes: int

    def __sub__(self, before: "Usage") -> "Usage":
        return Usage(self.processor_s - before.processor_s, self.wakes - before.wakes)


def usage(pid: int) -> Usage:
    """Of all its threads that live."""
    processor_ns = wakes = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        processor_ns += int((task / "schedstat").read_text().split()[0])
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                wakes += int(line.split()[1])
    return Usage(processor_ns / 1e9, wakes)


def pss_mb(pid: int) -> float:
    """Its share of the memory: what it has in common with others is divided among them."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(f"{pid} has ended ({os.strerror(3)})")
