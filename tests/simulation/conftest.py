"""The directed tests are also what the mutants are tried on, so the core is handed to them."""

import pytest

from failover_agent.simulation.product import SHIPPED, Product


@pytest.fixture
def core() -> Product:
    """The core as it is shipped."""
    return SHIPPED
