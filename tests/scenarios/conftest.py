"""The flag that writes the transcripts anew: `pytest tests/scenarios --rewrite-transcripts`."""

import pytest

FLAG = "--rewrite-transcripts"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Look at the diff before you commit it: it is the review of a change of the core."""
    parser.addoption(FLAG, action="store_true", help="write the golden transcripts anew")


@pytest.fixture
def rewrite(request: pytest.FixtureRequest) -> bool:
    """Whether the flag was given."""
    return bool(request.config.getoption(FLAG, default=False))
