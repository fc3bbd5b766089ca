"""Several ways to one node, in the adapter: each rule bent in turn, and caught.

As in test_protocol_mutants: one named function is replaced while the test that guards it runs.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from failover_agent.adapters.path import Path
from failover_agent.adapters.peer import Message, Peers, _completion, _NoAnswer
from failover_agent.protocol.auth import Keeper
from tests.integration import test_paths
from tests.mutants.test_protocol_mutants import Bend

pytestmark = pytest.mark.mutant

REQUEST = Keeper.request
ANSWERED = Path.answered


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    return lambda: asyncio.run(test())


async def _one_failure_fails_all(self: Peers, effect: Message) -> None:
    sent_at_s = self._clock.now()
    said = [await self._perform_over(path, effect) for path in self._paths[effect.to]]
    failed = [one for one in said if isinstance(one, _NoAnswer)]
    self._post(_completion(effect, sent_at_s, failed[0] if failed else said[0]))


async def _all_are_waited_for(self: Peers, effect: Message) -> None:
    sent_at_s = self._clock.now()
    said = await asyncio.gather(*(self._perform_over(p, effect) for p in self._paths[effect.to]))
    good = [one for one in said if not isinstance(one, _NoAnswer)]
    self._post(_completion(effect, sent_at_s, (good or said)[0]))


async def _only_the_first(self: Peers, effect: Message) -> None:
    sent_at_s = self._clock.now()
    said = await self._perform_over(self._paths[effect.to][0], effect)
    self._post(_completion(effect, sent_at_s, said))


def _one_address_for_all(self: Keeper, to: Any, request: Any, *, endpoint: int = 0) -> Any:
    return REQUEST(self, to, request, endpoint=0 * endpoint)


def _forgets_what_was_answered(self: Path, sent_at_s: float, now: float) -> None:
    ANSWERED(self, sent_at_s, now)
    self._newest_answered_s = float("-inf")


BENDS = [
    Bend(
        "one failed path fails the beat",
        Peers,
        "perform",
        _one_failure_fails_all,
        run(test_paths.test_a_refused_connection_is_not_waited_for_and_not_the_answer),
    ),
    Bend(
        "the answer waits for the slowest path",
        Peers,
        "perform",
        _all_are_waited_for,
        run(test_paths.test_the_answer_waits_for_no_slower_way_and_no_beat_for_the_one_before),
    ),
    Bend(
        "all but the first path are for show",
        Peers,
        "perform",
        _only_the_first,
        run(test_paths.test_a_refused_connection_is_not_waited_for_and_not_the_answer),
    ),
    Bend(
        "a path that leads astray teaches the others its address",
        Keeper,
        "request",
        _one_address_for_all,
        run(test_paths.test_a_way_that_leads_astray_is_an_alarm_and_spoils_nothing_for_the_other),
    ),
    Bend(
        "an old beat that ends unanswered speaks against a path that works",
        Path,
        "answered",
        _forgets_what_was_answered,
        run(test_paths.test_an_old_beat_that_ends_unanswered_is_nothing_against_a_way_that_works),
    ),
]


@pytest.mark.parametrize("bend", BENDS, ids=lambda bend: bend.what)
def test_the_bend_is_caught(bend: Bend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_paths, "LIMIT_S", 2.0)
    monkeypatch.setattr(bend.owner, bend.name, bend.by)

    with pytest.raises((AssertionError, ExceptionGroup)):
        bend.caught_by()
