"""The directed tests are also what the mutants are tried on, so the core is handed to them."""

from pathlib import Path

import pytest

from failover_agent.simulation.product import SHIPPED, Product

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every branch of the core is for the unit tests to reach; counting here costs minutes."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.no_cover)


@pytest.fixture
def core() -> Product:
    """The core as it is shipped."""
    return SHIPPED
