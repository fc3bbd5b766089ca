"""Each mutant of the core is caught by the test that the table names for it.

That the same test passes with the shipped core is shown where it lives, in tests/simulation.
"""

from collections.abc import Callable, Mapping

import pytest

from failover_agent.simulation.product import Product
from tests.mutants.loader import AnchorGone, Edit, load
from tests.mutants.table import Mutant, read_mutants
from tests.simulation import (
    test_directed_arbiter,
    test_directed_cables,
    test_directed_failing,
    test_directed_fence,
    test_directed_guard,
    test_directed_holder,
    test_directed_leaving,
    test_directed_starting,
    test_directed_voter,
    test_directed_wires,
    test_histories,
)

pytestmark = pytest.mark.mutant

SCENARIOS: Mapping[str, Callable[[Product], None]] = {
    name: scenario
    for module in (
        test_directed_arbiter,
        test_directed_cables,
        test_directed_failing,
        test_directed_fence,
        test_directed_guard,
        test_directed_holder,
        test_directed_leaving,
        test_directed_starting,
        test_directed_voter,
        test_directed_wires,
        test_histories,
    )
    for name, scenario in vars(module).items()
    if name.startswith("test_")
}


@pytest.mark.parametrize("mutant", list(read_mutants()), ids=lambda mutant: mutant.what)
def test_the_mutant_is_caught(mutant: Mutant) -> None:
    core = load(mutant.edits, checked=mutant.checked)

    with pytest.raises(AssertionError):
        SCENARIOS[mutant.caught_by](core)


def test_a_mutant_without_its_anchor_is_an_error() -> None:
    with pytest.raises(AnchorGone):
        load((Edit("plan.py", "a line that was never there", ""),), checked=True)


def test_a_core_loaded_without_edits_is_the_shipped_one() -> None:
    core = load((), checked=True)

    test_directed_wires.test_a_thawed_former_active_stops_within_a_beat(core)
