"""guard/watch.py: what is armed, who is heard, and when its time has come (G1, G2)."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from failover_agent.guard import watch
from failover_agent.guard.watch import Lease, RefusedError, Target, Watch

T_S, KILL_BUDGET_S = 10.0, 1.0
NOW, LATE = 1000.0, 1e12
ID, OTHER_ID = "a" * 64, "b" * 64


def greeted() -> Watch:
    """The first agent runs and has said hello."""
    return watch.greet(watch.begin_child(Watch()), 1, T_S, KILL_BUDGET_S)


def armed(term: int = 7, until_s: float = NOW + T_S) -> Watch:
    return watch.arm(greeted(), 1, Lease(term, ("db", "web"), until_s), NOW)


def over() -> Watch:
    """The end has come, and the next agent has said hello."""
    return watch.greet(watch.begin_child(watch.enforce(armed())), 3, T_S, KILL_BUDGET_S)


def test_it_is_due_a_kill_budget_before_the_end_of_the_lease_and_not_earlier() -> None:
    assert not watch.is_due(armed(), NOW + T_S - KILL_BUDGET_S - 0.001)
    assert watch.is_due(armed(), NOW + T_S - KILL_BUDGET_S)
    assert watch.kill_at_s(armed()) == NOW + T_S - KILL_BUDGET_S


def test_nothing_is_due_where_nothing_is_armed_or_a_hold_is() -> None:
    held = watch.move(armed(), 1, 7, math.inf, NOW)

    assert not watch.is_due(greeted(), LATE)
    assert not watch.is_due(held, LATE)
    assert not watch.is_due(watch.disarm(armed(), 1, 7), LATE)


def test_an_answer_moves_the_deadline_and_the_end_of_a_hold_brings_one_back() -> None:
    later = watch.move(armed(), 1, 7, NOW + 12, NOW + 3)
    held = watch.move(later, 1, 7, math.inf, NOW + 4)
    back = watch.move(held, 1, 7, NOW + 100, NOW + 95)

    assert [watch.kill_at_s(it) for it in (later, held, back)] == [NOW + 11, math.inf, NOW + 99]


def test_a_deadline_further_than_t_ahead_is_refused() -> None:
    for ahead_s in (T_S + 0.001, 1e9, math.nan):
        with pytest.raises(RefusedError):
            watch.move(armed(), 1, 7, NOW + ahead_s, NOW)
        with pytest.raises(RefusedError):
            watch.arm(greeted(), 1, Lease(7, ("db",), NOW + ahead_s), NOW)
    assert watch.move(armed(), 1, 7, NOW + 1 + T_S, NOW + 1).lease is not None


def test_an_earlier_agent_is_not_heard() -> None:
    second = watch.begin_child(armed())

    says: list[Callable[[], Watch]] = [
        lambda: watch.greet(second, 1, T_S, KILL_BUDGET_S),
        lambda: watch.see(second, 1, Target("db", ID)),
        lambda: watch.arm(second, 1, Lease(7, ("db",), NOW + 5), NOW),
        lambda: watch.move(second, 1, 7, NOW + 5, NOW),
        lambda: watch.disarm(second, 1, 7),
    ]
    for say in says:
        with pytest.raises(RefusedError, match="earlier agent"):
            say()
    assert watch.move(second, 2, 7, NOW + 5, NOW).lease == Lease(7, ("db", "web"), NOW + 5)


def test_an_agent_whose_time_was_over_is_not_heard_before_the_next_one_starts() -> None:
    enforced = watch.enforce(armed())

    with pytest.raises(RefusedError):
        watch.disarm(enforced, 1, 7)
    with pytest.raises(RefusedError):
        watch.arm(enforced, 1, Lease(8, ("db",), NOW + 5), NOW)
    assert enforced.is_over


def test_only_the_armed_term_moves_and_none_that_is_over() -> None:
    for term in (6, 8):
        with pytest.raises(RefusedError):
            watch.move(armed(), 1, term, NOW + 5, NOW)
    with pytest.raises(RefusedError):
        watch.move(greeted(), 1, 7, NOW + 5, NOW)
    with pytest.raises(RefusedError):
        watch.move(over(), 3, 7, NOW + 5, NOW)


def test_an_older_term_neither_arms_nor_disarms() -> None:
    with pytest.raises(RefusedError):
        watch.arm(armed(), 1, Lease(6, ("db",), NOW + 5), NOW)
    with pytest.raises(RefusedError):
        watch.disarm(armed(), 1, 6)
    assert watch.disarm(armed(), 1, 8).lease is None


def test_after_a_resume_the_same_term_is_armed_again() -> None:
    second = watch.begin_child(armed())

    assert watch.arm(second, 2, Lease(7, ("db",), NOW + 5), NOW).lease == Lease(7, ("db",), NOW + 5)


def test_a_lease_that_has_as_good_as_ended_is_not_armed() -> None:
    with pytest.raises(RefusedError):
        watch.arm(greeted(), 1, Lease(7, ("db",), NOW + KILL_BUDGET_S), NOW)


def test_before_hello_nothing_is_armed_and_a_hello_has_to_make_sense() -> None:
    silent = watch.begin_child(Watch())

    with pytest.raises(RefusedError):
        watch.arm(silent, 1, Lease(7, ("db",), NOW + 5), NOW)
    for t_s, kill_budget_s in ((10.0, 0.0), (10.0, 10.0), (math.inf, 1.0), (10.0, math.nan)):
        with pytest.raises(RefusedError):
            watch.greet(silent, 1, t_s, kill_budget_s)


def test_an_enforced_lease_is_over_until_the_next_agent_disarms_or_has_a_new_term() -> None:
    with pytest.raises(RefusedError):
        watch.arm(over(), 3, Lease(7, ("db",), NOW + 5), NOW)
    assert watch.lease_until_s(over()) == -math.inf
    assert not watch.is_due(over(), LATE), "once is enough"
    assert not watch.disarm(over(), 3, 7).is_over
    assert not watch.arm(over(), 3, Lease(8, ("db",), NOW + 5), NOW).is_over


def test_an_agent_that_lost_its_record_ends_the_killing_too() -> None:
    """It knows nothing of the term, and has seen that nothing runs: or a guard kills for ever."""
    ended = watch.disarm(over(), 3, 0)

    assert ended.lease is None
    assert not ended.is_over
    assert watch.may_be_left(ended)
    with pytest.raises(RefusedError):
        watch.disarm(over(), 1, 0)


def test_a_new_agent_learns_until_when_the_lease_runs() -> None:
    assert watch.lease_until_s(Watch()) == -math.inf
    assert watch.lease_until_s(armed()) == NOW + T_S
    assert watch.lease_until_s(watch.move(armed(), 1, 7, math.inf, NOW)) == math.inf


def test_only_what_is_not_armed_or_on_hold_may_be_left() -> None:
    assert watch.may_be_left(greeted())
    assert watch.may_be_left(watch.move(armed(), 1, 7, math.inf, NOW))
    assert not watch.may_be_left(armed())
    assert not watch.may_be_left(over())


def test_what_is_known_of_a_name_is_what_was_seen_last_and_only_the_armed_are_condemned() -> None:
    seen = armed()
    for target in (Target("db", ID, 4), Target("other", OTHER_ID), Target("db", OTHER_ID, 5)):
        seen = watch.see(seen, 1, target)

    assert watch.condemned(seen) == (Target("db", OTHER_ID, 5),)
    assert watch.condemned(replace(seen, lease=None)) == ()


@pytest.mark.parametrize("container_id", ["", "a", "A" * 64, "a" * 63, "/" * 64])
def test_what_is_no_id_in_whole_is_refused(container_id: str) -> None:
    with pytest.raises(RefusedError):
        watch.see(armed(), 1, Target("db", container_id))


def test_there_is_an_end_to_what_is_remembered() -> None:
    seen = armed()
    for number in range(watch.MOST_TARGETS + 10):
        seen = watch.see(seen, 1, Target(str(number), ID))

    assert len(seen.targets) == watch.MOST_TARGETS
