"""G1, G2, G3: the guard with one line changed in turn, each caught by the test that is named.

What decides (guard/watch.py) is changed in this process; what acts in a guard of its
own. That the same tests pass with the shipped guard is shown where they live.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

from failover_agent.guard import watch
from tests.integration import guarded, test_guard
from tests.unit import test_guard_watch

pytestmark = [pytest.mark.mutant, pytest.mark.timeout(180)]


@dataclass(frozen=True)
class Decision:
    """In `module`, `old`, which is there exactly once, becomes `new`; `caught_by` has to fail."""

    rule: str
    what: str
    module: ModuleType
    old: str
    new: str
    caught_by: Callable[[], object]


@dataclass(frozen=True)
class Deed:
    """As `Decision`, in a module of the guard's own process."""

    rule: str
    what: str
    module: str
    old: str
    new: str
    caught_by: Callable[[guarded.Guard], object]


DECISIONS = [
    Decision(
        "G1",
        "a deadline is taken however far ahead it is",
        watch,
        "valid_until_s > now + watch.heartbeat_timeout_s",
        "False",
        test_guard_watch.test_a_deadline_further_than_t_ahead_is_refused,
    ),
    Decision(
        "G1",
        "an earlier agent is heard",
        watch,
        "if child != watch.child:",
        "if child > watch.child:",
        test_guard_watch.test_an_earlier_agent_is_not_heard,
    ),
    Decision(
        "G1",
        "any term moves the deadline",
        watch,
        "watch.lease is None or watch.is_over or watch.lease.term != term",
        "watch.lease is None or watch.is_over",
        test_guard_watch.test_only_the_armed_term_moves_and_none_that_is_over,
    ),
    Decision(
        "G1",
        "an older term disarms",
        watch,
        "if watch.lease is not None and not watch.is_over and term < watch.lease.term:",
        "if False:",
        test_guard_watch.test_an_older_term_neither_arms_nor_disarms,
    ),
    Decision(
        "G1",
        "what has no end in whole is an id",
        watch,
        "if not CONTAINER_ID.fullmatch(target.container_id):",
        "if False:",
        lambda: test_guard_watch.test_what_is_no_id_in_whole_is_refused(""),
    ),
    Decision(
        "G2",
        "the kill comes at the end of the lease, not before",
        watch,
        "return watch.lease.valid_until_s - watch.kill_budget_s",
        "return watch.lease.valid_until_s",
        test_guard_watch.test_it_is_due_a_kill_budget_before_the_end_of_the_lease_and_not_earlier,
    ),
    Decision(
        "G2",
        "the agent whose time was over is still heard",
        watch,
        "return replace(watch, child=watch.child + 1, is_over=True)",
        "return replace(watch, is_over=True)",
        test_guard_watch.test_an_agent_whose_time_was_over_is_not_heard_before_the_next_one_starts,
    ),
    Decision(
        "G2",
        "a term that was enforced is armed again",
        watch,
        "lease.term < watch.lease.term + watch.is_over",
        "lease.term < watch.lease.term",
        test_guard_watch.test_an_enforced_lease_is_over_until_the_next_agent_disarms_or_has_a_new_term,
    ),
    Decision(
        "G2",
        "an enforced lease is told to the next agent as if it ran",
        watch,
        "if watch.lease is None or watch.is_over else watch.lease.valid_until_s",
        "if watch.lease is None else watch.lease.valid_until_s",
        test_guard_watch.test_an_enforced_lease_is_over_until_the_next_agent_disarms_or_has_a_new_term,
    ),
]

DEEDS = [
    Deed(
        "G1",
        "armed is answered whether or not it lies in the file",
        "supervisor",
        "self._unsaved_because or problem",
        '""',
        test_guard.test_a_lease_file_that_cannot_be_written_is_an_answer,
    ),
    Deed(
        "G2",
        "a frozen agent is left alone",
        "supervisor",
        "            os.kill(self._pid, signal.SIGKILL)\n",
        "",
        lambda guard: test_guard.test_it_holds_whatever_has_become_of_the_agent(guard, "frozen"),
    ),
    Deed(
        "G2",
        "one round of killing is enough",
        "rounds",
        "self.due_at_s = now + max(",
        "self.due_at_s = now + 1e9 + max(",
        test_guard.test_what_comes_up_late_is_killed_until_the_next_agent_disarms,
    ),
    Deed(
        "G2",
        "what was frozen is not thawed",
        "kill",
        "        _thaw(folder)\n",
        "",
        test_guard.test_frozen_containers_are_killed_and_strangers_are_not,
    ),
    Deed(
        "G2",
        "no agent is started after the kill",
        "supervisor",
        "            self._start_at_s = now\n            self._leave_with = FAILED if",
        "            self._start_at_s = math.inf\n            self._leave_with = FAILED if",
        lambda guard: test_guard.test_it_holds_whatever_has_become_of_the_agent(guard, "frozen"),
    ),
    Deed(
        "G3",
        "a new guard looks for no lease file",
        "supervisor",
        "        saved = file.read(path, self._owner.boot_id)\n",
        "        saved = None\n",
        test_guard.test_a_new_guard_takes_the_lease_up_and_the_agent_with_it,
    ),
    Deed(
        "G3",
        "a configuration that is broken hides the lease",
        "supervisor",
        "path = path or file.search(self._owner, self._environ)",
        "",
        test_guard.test_an_overdue_lease_is_enforced_before_an_agent_starts,
    ),
    Deed(
        "G3",
        "the agent of a dead guard goes on beside the next one",
        "supervisor",
        "        kill.kill_process(*saved.agent)\n",
        "",
        test_guard.test_a_frozen_agent_of_a_dead_guard_does_not_go_on_beside_the_next_one,
    ),
    Deed(
        "G3",
        "a lease of another boot counts",
        "file",
        'is_ours = content["schema"] == SCHEMA and content["boot_id"] == boot_id',
        'is_ours = content["schema"] == SCHEMA',
        test_guard.test_a_lease_of_another_boot_is_none,
    ),
    Deed(
        "G3",
        "an agent that ended with 2 is started again",
        "supervisor",
        "if code in {0, USAGE}:",
        "if code in {0}:",
        lambda guard: test_guard.test_an_agent_that_leaves_with_0_or_2_is_not_started_again(
            guard, 2
        ),
    ),
    Deed(
        "G3",
        "two guards at a time",
        "file",
        "fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "pass",
        test_guard.test_there_is_one_guard_and_the_second_waits_for_its_end,
    ),
]


@pytest.mark.parametrize("mutant", DECISIONS, ids=lambda it: f"{it.rule}: {it.what}")
def test_the_decision_is_caught(mutant: Decision, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = _change(mutant.module, mutant.old, mutant.new)
    for name, value in vars(mutant.module).items():
        if isinstance(value, FunctionType) and value.__module__ == mutant.module.__name__:
            monkeypatch.setattr(mutant.module, name, vars(changed)[name])

    with pytest.raises((AssertionError, pytest.fail.Exception)):
        mutant.caught_by()


@pytest.mark.parametrize("mutant", DEEDS, ids=lambda it: f"{it.rule}: {it.what}")
def test_the_deed_is_caught(mutant: Deed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (guarded, test_guard):
        monkeypatch.setattr(module, "LIMIT_S", 8.0)  # for what will not come
    guard = guarded.Guard(tmp_path, [(mutant.module, mutant.old, mutant.new)])
    try:
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            mutant.caught_by(guard)
        assert "Traceback" not in guard.logged(), "it has to run, and to be wrong"
    finally:
        guard.close()


def _change(module: ModuleType, old: str, new: str) -> ModuleType:
    """Its functions, changed, which speak of the shipped data classes."""
    assert module.__file__ is not None
    source = Path(module.__file__).read_text()
    assert source.count(old) == 1, f"{old!r} is there {source.count(old)} times, not once"
    changed = ModuleType(module.__name__)
    classes = {name: it for name, it in vars(module).items() if isinstance(it, type)}
    exec(compile(source.replace(old, new), module.__file__, "exec"), changed.__dict__)
    changed.__dict__.update(classes)
    return changed


def test_every_rule_has_two_mutants_and_more() -> None:
    rules = [*(it.rule for it in DECISIONS), *(it.rule for it in DEEDS)]

    assert all(rules.count(rule) >= 2 for rule in ("G1", "G2", "G3"))
