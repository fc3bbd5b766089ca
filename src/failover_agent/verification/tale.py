"""What happened in one history, as a chain that forks share; and what a broken rule says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Line:
    """At `at_s` of the world's time `who` did or suffered `what`. `is_fault`: the adversary's."""

    at_s: float
    who: str
    what: str
    is_fault: bool
    before: Line | None


def lines(last: Line | None) -> list[Line]:
    """All lines up to `last`, oldest first."""
    return list(reversed(list(_backwards(last))))


def _backwards(last: Line | None) -> Iterator[Line]:
    while last is not None:
        yield last
        last = last.before


class Broken(Exception):  # noqa: N818 - it reads as a sentence
    """A property does not hold in this history."""

    def __init__(self, rule: str, sentence: str) -> None:
        """`rule` is the property, `sentence` what was seen."""
        super().__init__(f"{rule}: {sentence}")
        self.rule = rule
        self.sentence = sentence
