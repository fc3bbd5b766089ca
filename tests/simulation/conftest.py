"""The directed tests are also what the mutants are tried on, so the core is handed to them."""

from pathlib import Path

import pytest

from failover_agent.simulation.product import SHIPPED, Product

HERE = Path(__file__).parent
LIMIT_S = 300
"""They only compute, and on a busy machine for long. `--timeout` on the command line overrules."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Every branch of the core is for the unit tests to reach; counting here costs minutes."""
    is_limited = config.getoption("timeout", None) is not None
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.no_cover)
            if not is_limited and item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(LIMIT_S))


@pytest.fixture
def core() -> Product:
    """The core as it is shipped."""
    return SHIPPED
