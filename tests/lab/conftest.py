"""A trio is shared by the tests of a file; each finds it settled, and its logs where it failed."""

import sys
from collections.abc import Generator, Iterator

import pytest

from tests.lab.pair import assert_never_two
from tests.lab.trio import Trio
from tests.lab.truth import now_s

FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """The fixture below has to know how its test went."""
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    return report


@pytest.fixture
def trio(shared: Trio, request: pytest.FixtureRequest) -> Iterator[Trio]:
    """`shared` is the file's own trio. Nothing ran on both hosts in any test's time."""
    shared.settle()
    shared.judged_from_s = now_s()
    yield shared
    if request.node.stash.get(FAILED, True):
        sys.stderr.write(shared.lab.report())
    else:
        assert_never_two(shared.lab, shared.judged_from_s)
