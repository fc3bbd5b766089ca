"""The only reader of clocks. Everybody else is handed a moment."""

import time
from datetime import UTC, datetime


class Clock:
    """This machine's clocks."""

    def now(self) -> float:
        """Seconds on CLOCK_BOOTTIME: it goes on while the machine sleeps, and nobody sets it.

        A moment of one machine, and of one boot, means nothing in another.
        """
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall(self) -> datetime:
        """The time of day in UTC: for people, and never decided by, because it jumps."""
        return datetime.now(UTC)


def wall_text(moment: datetime) -> str:
    """The time of day as log, journal and history write it: 2026-11-22T03:04:05.123Z."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"
