"""A pair is shared by the tests of a file; each finds it settled, and its logs where it failed."""

import contextlib
import sys
from collections.abc import Generator, Iterator
from typing import Protocol

import pytest

from tests.lab.lab import Lab
from tests.lab.pair import assert_never_two
from tests.lab.trio import Trio
from tests.lab.truth import now_s

FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """`judged` has to know how its test went."""
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    return report


class Shared(Protocol):
    """A pair of a file's own, with an arbiter or without."""

    lab: Lab
    judged_from_s: float

    def settle(self) -> object: ...


@contextlib.contextmanager
def judged(shared: Shared, request: pytest.FixtureRequest) -> Iterator[None]:
    """`shared` is settled before the test, and nothing ran on both hosts in the test's time."""
    shared.settle()
    shared.judged_from_s = now_s()
    yield
    if request.node.stash.get(FAILED, True):
        sys.stderr.write(shared.lab.report())
    else:
        assert_never_two(shared.lab, shared.judged_from_s)


@pytest.fixture
def trio(shared: Trio, request: pytest.FixtureRequest) -> Iterator[Trio]:
    """`shared` is the file's own trio."""
    with judged(shared, request):
        yield shared
