"""The rules of a lease, of the guard and of the fence: each mutant is caught by a test of the core.

lease_rules.txt has the format of rules.txt, but a mutant is caught by a test of tests/unit/core,
named with its module: a story of one node among voters that say what the test wants. While it runs,
every name of the deciding core in that test and in its builders means the mutant. That the same
test passes with the shipped core is shown where it lives.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from failover_agent.core import invariants
from tests.mutants.loader import load_modules
from tests.mutants.table import Mutant, read_mutants
from tests.unit.core import (
    builders,
    test_arbiter,
    test_fencing,
    test_guard_orders,
    test_leases,
    test_paths,
    test_step,
    test_stopping,
    trio,
)

pytestmark = pytest.mark.mutant

RULES = Path(__file__).with_name("lease_rules.txt")
MODULES = {
    module.__name__.rpartition(".")[2]: module
    for module in (
        test_arbiter,
        test_fencing,
        test_guard_orders,
        test_leases,
        test_paths,
        test_step,
        test_stopping,
    )
}


def _unchecked(*_: Any) -> None:
    """No invariant helps: the test itself must notice."""


def _meant(value: Any, mutant: Mapping[str, ModuleType]) -> Any:
    """What a name of the core means in the mutant; the same where the core does not decide it."""
    if value is invariants:
        return SimpleNamespace(check=_unchecked, Breach=invariants.Breach)
    if isinstance(value, ModuleType):
        return mutant.get(value.__name__, value)
    home = mutant.get(getattr(value, "__module__", None) or "")
    return value if home is None else getattr(home, value.__name__, value)


def _test_of(name: str) -> tuple[ModuleType, Callable[[], None]]:
    module, _, test = name.partition(".")
    found: Callable[[], None] = vars(MODULES[module])[test]
    return MODULES[module], found


@pytest.mark.parametrize("mutant", list(read_mutants(RULES)), ids=lambda mutant: mutant.what)
def test_the_mutant_is_caught(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    user, test = _test_of(mutant.caught_by)
    modules = load_modules(mutant.edits)
    for module in (builders, trio, user):
        for name, value in list(vars(module).items()):
            monkeypatch.setattr(module, name, _meant(value, modules))

    with pytest.raises((AssertionError, ValueError, pytest.fail.Exception)):
        test()


@pytest.mark.parametrize("name", sorted({mutant.caught_by for mutant in read_mutants(RULES)}))
def test_without_a_bend_the_test_passes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    user, test = _test_of(name)
    modules = load_modules(())
    for module in (builders, trio, user):
        for key, value in list(vars(module).items()):
            monkeypatch.setattr(module, key, _meant(value, modules))

    test()
