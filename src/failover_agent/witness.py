"""The witness: a third voter for many pairs, without Docker and without a phase.

For each pair it does what the state machine of a node does for itself (agent.py): decide, save,
then answer. Pairs wait for nothing of each other, and a pair for nothing but its own save, and for
that only where the answer is more than a word on what is saved already. So a disk that is full or
hangs keeps the witness from giving its vote to anybody new, and stops no running service.

Memory is bounded by the configuration: a pair that is not in it is not known here, and of each one
no more is kept than its voter, the last message of either node, and some counts.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NoReturn, Protocol

from failover_agent.core import ballot
from failover_agent.core import voter as voters
from failover_agent.core.ballot import Ballot, Hearing
from failover_agent.core.events import ConflictSeen
from failover_agent.core.messages import Answer, ReleaseRequest, Request, Sender
from failover_agent.core.policy import Role
from failover_agent.core.state import Alarm, Durable
from failover_agent.protocol.auth import Keeper

ANSWER_S = 5.0
"""A request is answered within that time, or not at all."""
TRIES = 3
ROUND_S = 1.0
"""How often alarms are looked at."""
PROBE_EVERY_ROUNDS = 60
"""The disk is tried that often while it works, and each round while it does not."""
PROBED_AT_ONCE = 16
CONFLICT_LASTS_S = 30.0
"""A wrong message that is not repeated is forgotten after that."""
LEFT_RUNNING = (
    "left its containers running: no takeover until it is back; if it is off for good:"
    " failover-agent takeover --peer-is-off on the other node"
)
FORGOT = (
    "no vote for this pair was on record when the witness began: it is new, or its disk was"
    " emptied; nobody new gets one before it has run for {:.1f} s"
)
MEMBERS = (Role.PRIMARY, Role.BACKUP)

log = logging.getLogger(__name__)


class Clock(Protocol):
    """Seconds on CLOCK_BOOTTIME."""

    def now(self) -> float: ...


class RecordStore(Protocol):
    """Where the word of a voter is kept. `save` and `probe` raise OSError, after a deadline too.

    `is_lost`: no grant is on record, so one may have been lost (V4).
    """

    node_id: str
    durable: Durable
    is_lost: bool

    async def save(self, durable: Durable) -> None: ...
    async def probe(self) -> None: ...


class Pair:
    """The voter of one pair, and what was heard of its nodes.

    `timeout_s`: the longest T that is known where nothing else tells (V4); also how long a node
    counts as living after it was heard, so that a second one of its role is refused.
    """

    def __init__(
        self,
        cluster: str,
        record: RecordStore,
        *,
        secret: bytes | None,
        run_id: str,
        clock: Clock,
        timeout_s: float,
    ) -> None:
        self.cluster = cluster
        self.keeper = Keeper(
            cluster=cluster,
            me=Sender(Role.WITNESS, record.node_id, run_id, fingerprint=""),
            secret=secret,
            peers=frozenset(MEMBERS),
            living_for_s=timeout_s,
            term=record.durable.term,
        )
        self._record = record
        self._clock = clock
        self._voter = voters.begin(
            record.durable, clock.now(), timeout_s=timeout_s, forgot=record.is_lost
        )
        self._doubtful: Durable | None = None
        self._record_error = ""
        self._saving = asyncio.Lock()
        self._heard: dict[Role, Hearing] = {}
        self._conflicts: dict[str, tuple[ConflictSeen, float]] = {}
        self._alarms: dict[str, Alarm] = {}

    # --- deciding -----------------------------------------------------------------------------

    async def ask(self, request: Request) -> Answer:
        """What the voter says to an authentic request.

        TimeoutError: what it would say could not be saved, and the asker should try again.
        """
        now = self._clock.now()
        self._note(request, now)
        after, answer = ballot.decide(self._voter, request, now, self.keeper.me)
        if not ballot.needs_save(self._voter, after, self._doubtful):
            self._voter = after
            return answer
        async with asyncio.timeout(ANSWER_S), self._saving:
            return await self._save_and_answer(request)

    async def _save_and_answer(self, request: Request) -> Answer:
        """Decided once more after the save, because others were answered meanwhile."""
        for _ in range(TRIES):
            after, answer = self._decide(request)
            if not ballot.needs_save(self._voter, after, self._doubtful):
                self._voter = after
                return answer
            await self._save(after.durable)
            saved = after.durable
            after, answer = self._decide(request)
            if after.durable == saved:
                self._doubtful = None
                self._tell(after.durable)
                self._voter = after
                return answer
        raise TimeoutError("others are always faster")

    def _decide(self, request: Request) -> tuple[voters.Voter, Answer]:
        return ballot.decide(self._voter, request, self._clock.now(), self.keeper.me)

    async def _save(self, durable: Durable) -> None:
        """From here until it is certain the disk may say either: see `needs_save`."""
        self._doubtful = durable
        try:
            await self._record.save(durable)
        except OSError as error:
            self._record_error = error.strerror or str(error) or type(error).__name__
            raise TimeoutError(self._record_error) from error
        self._record_error = ""

    def _tell(self, after: Durable) -> None:
        """The log has a line for each term that is given and each that is given back."""
        before = self._voter.durable
        same = (before.term, before.holder, before.released, before.hold)
        if (after.term, after.holder, after.released, after.hold) == same:
            return
        if after.released:
            sentence = "the term was given back: the vote is free"
        elif after.hold:
            sentence = "on hold: nobody takes over until the holder is back, or an operator says so"
        else:
            sentence = "this term has the vote"
        role = None if after.holder is None else after.holder.role
        fields = {"cluster": self.cluster, "term": after.term, "holder": role, "sentence": sentence}
        log.info("promise", extra={"fields": fields})

    def _note(self, request: Request, now: float) -> None:
        if not isinstance(request, ReleaseRequest):
            self._heard[request.sender.role] = Hearing(request.sender, now, request.lease_s)

    # --- showing ------------------------------------------------------------------------------

    def conflict(self, seen: ConflictSeen) -> None:
        """An authentic message was refused, because somebody is set up wrongly (V9)."""
        self._conflicts[seen.kind] = (seen, self._clock.now())

    def look(self) -> Ballot:
        """The pair as it is now; alarms that opened or ended since the last look are logged."""
        now = self._clock.now()
        before, self._alarms = self._alarms, dict(self._alarms_at(now))
        for code in before.keys() - self._alarms.keys():
            self._log_alarm("alarm ended", before[code])
        for code in self._alarms.keys() - before.keys():
            self._log_alarm("alarm", self._alarms[code])
        return Ballot(
            cluster=self.cluster,
            me=self.keeper.me,
            voter=self._voter,
            heard=dict(self._heard),
            alarms=tuple(self._alarms.values()),
            rejected=dict(self.keeper.rejected),
        )

    def _alarms_at(self, now: float) -> Iterator[tuple[str, Alarm]]:
        """One that stays keeps its start."""
        for code, sentence in self._conditions(now):
            known = self._alarms.get(code)
            yield code, Alarm(code, sentence, now if known is None else known.since_s)

    def _conditions(self, now: float) -> Iterator[tuple[str, str]]:
        if self._record_error:
            yield "record_not_writable", f"the record cannot be written: {self._record_error}"
        for seen, at_s in self._conflicts.values():
            if now - at_s <= CONFLICT_LASTS_S:
                yield seen.kind, seen.detail
        differs = ballot.differing_fingerprints(self._heard, now)
        if differs:
            yield "fingerprint_differs", differs
        durable = self._voter.durable
        if durable.hold and durable.holder is not None:
            yield "held", f"the {durable.holder.role} {LEFT_RUNNING}"
        if self._voter.forgot and self._heard and now < self._voter.grants_after_s:
            wait_s = self._voter.grants_after_s - self._voter.began_at_s
            yield "record_lost", FORGOT.format(wait_s)

    def _log_alarm(self, event: str, alarm: Alarm) -> None:
        level = logging.WARNING if event == "alarm" else logging.INFO
        fields = {"cluster": self.cluster, "code": alarm.code, "sentence": alarm.sentence}
        log.log(level, event, extra={"fields": fields})

    @property
    def cannot_save(self) -> bool:
        """Did the last save or probe fail?"""
        return bool(self._record_error)

    async def probe(self) -> None:
        """Try the disk, so that it is known before a vote is needed."""
        if self._saving.locked():
            return  # The save tells as much.
        try:
            await self._record.probe()
        except OSError as error:
            self._record_error = error.strerror or str(error) or type(error).__name__
        else:
            self._record_error = ""


class Witness:
    """All pairs of the configuration.

    `rejected` counts what was for none of them, by error code.
    """

    def __init__(
        self, pairs: Iterable[Pair], *, clock: Clock, come_round: Callable[[], None] = lambda: None
    ) -> None:
        self.pairs: Mapping[str, Pair] = {pair.cluster: pair for pair in pairs}
        self.rejected: Counter[str] = Counter()
        self._clock = clock
        self._come_round = come_round
        self._stepped_at_s = clock.now()

    async def run(self) -> NoReturn:
        """Look after the pairs, forever: alarms into the log, and whether their disk is well."""
        rounds = 0
        while True:
            self.look()
            self._stepped_at_s = self._clock.now()
            self._come_round()
            if rounds % PROBE_EVERY_ROUNDS == 0 or any(p.cannot_save for p in self.pairs.values()):
                await self._probe()
            rounds += 1
            await asyncio.sleep(ROUND_S)

    async def _probe(self) -> None:
        """All records lie on one disk, as a rule: one of them tells, and those that failed."""
        failed = [pair for pair in self.pairs.values() if pair.cannot_save]
        async with asyncio.TaskGroup() as group:
            for pair in failed[:PROBED_AT_ONCE] or list(self.pairs.values())[:1]:
                group.create_task(pair.probe(), name=f"probe {pair.cluster}")

    def look(self) -> tuple[Ballot, ...]:
        """Each pair as it is now, in the order of the configuration."""
        return tuple(pair.look() for pair in self.pairs.values())

    def not_ready_because(self) -> tuple[str, ...]:
        """Why it could not vote; empty when it could (GET /readyz)."""
        return tuple(
            f"{pair.cluster}: its record cannot be written"
            for pair in self.pairs.values()
            if pair.cannot_save
        )

    def stepped_ago_s(self) -> float:
        """How long ago the last round was: of a living witness little more than a second."""
        return self._clock.now() - self._stepped_at_s
