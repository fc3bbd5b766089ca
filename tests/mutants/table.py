"""Reads rules.txt: every rule, removed or bent, and the test that catches it.

A mutant is two lines of comment (rule and what is wrong with it; the directed test that catches
it) and one or more hunks: `@ file` of the core, then lines as in a diff, where the old lines must
be there exactly once. The core's own invariants are switched off, so that the world must notice,
but where the table says `by the invariants alone`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.loader import Edit

RULES = Path(__file__).with_name("rules.txt")
CAUGHT_BY = "# caught by "
CHECKED = ", by the invariants alone"


@dataclass(frozen=True)
class Mutant:
    """`rule` as in the design, `what` for people; `caught_by` is a test of tests/simulation."""

    rule: str
    what: str
    caught_by: str
    checked: bool
    edits: tuple[Edit, ...]


def read_mutants(rules: Path = RULES) -> Iterator[Mutant]:
    """Every mutant of a table: rules.txt, unless another is named."""
    for paragraph in rules.read_text().strip().split("\n\n"):
        title, caught_by, *hunks = paragraph.split("\n")
        rule, _, what = title.removeprefix("# ").partition(": ")
        assert caught_by.startswith(CAUGHT_BY), caught_by
        test = caught_by.removeprefix(CAUGHT_BY)
        edits = tuple(_edits(hunks))
        assert edits, f"{what}: changes nothing"
        yield Mutant(rule, what, test.removesuffix(CHECKED), test.endswith(CHECKED), edits)


def _edits(lines: list[str]) -> Iterator[Edit]:
    starts = [number for number, line in enumerate(lines) if line.startswith("@ ")]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        hunk = lines[start + 1 : end]
        assert all(line[:1] in {" ", "-", "+"} for line in hunk), hunk
        old = "".join(f"{line[1:]}\n" for line in hunk if line[0] != "+")
        new = "".join(f"{line[1:]}\n" for line in hunk if line[0] != "-")
        yield Edit(lines[start].removeprefix("@ "), old, new)
