"""Letters, and the witness, who does nothing but answer them."""

from __future__ import annotations

from typing import Any, assert_never

from failover_agent.core.events import (
    Event,
    HeartbeatAnswered,
    HeartbeatReceived,
    ReleaseAnswered,
    ReleaseReceived,
    VoteAnswered,
    VoteRequested,
)
from failover_agent.core.messages import (
    Answer,
    Beat,
    BeatAnswer,
    ReleaseAnswer,
    ReleaseRequest,
    Request,
    VoteAnswer,
    VoteRequest,
)
from failover_agent.core.policy import Role
from failover_agent.core.state import Durable
from failover_agent.verification.ground import Ground, Happening
from failover_agent.verification.machines import Clock, Host, Letter, Witness


class Mail(Ground):
    """A letter takes its time, is lost where its link is cut, and is answered by its receiver."""

    def send(self, host: Host, to: Role, body: Request, deadline_s: float) -> None:
        """A request leaves; without an answer within `deadline_s` it has none."""
        assert host.agent is not None
        self.serial += 1
        letter = Letter(
            source=host.role,
            target=to,
            body=body,
            number=self.serial,
            run=host.agent.run,
            sent_at_s=self.now_s,
            sent_clock_s=host.clock.read(self.now_s),
            deadline_s=deadline_s,
        )
        self.after(self.pace.trip_s, Mail.arrive, letter)

    def answer(self, question: Letter, body: Answer, takes_s: float) -> None:
        """The answer to `question` leaves in `takes_s`."""
        letter = Letter(
            source=question.target,
            target=question.source,
            body=body,
            number=question.number,
            run=question.run,
            sent_at_s=self.now_s,
            sent_clock_s=0.0,
            deadline_s=0.0,
            question=question,
        )
        self.after(takes_s + self.pace.trip_s, Mail.arrive, letter)

    def arrive(self, letter: Letter) -> None:
        """A letter is there, unless its link is cut."""
        if (letter.source, letter.target) not in self.cuts:
            self.hand_in(letter)

    def hand_in(self, letter: Letter) -> None:
        """A letter is there: to whom it may concern, if he still waits for it."""
        if letter.target is Role.WITNESS:
            self.in_witness(Mail._decide, letter)
            return
        host = self.hosts[letter.target]
        agent, question = host.agent, letter.question
        if agent is None:
            return
        if question is not None:
            waits = self.now_s <= question.sent_at_s + question.deadline_s / host.clock.rate
            if agent.run != question.run or not waits:
                return
        self.in_agent(host.role, agent.run, Mail._receive, letter)

    def next_letter(self) -> Letter | None:
        """The letter that arrives next, if that is what happens next."""
        _, function, args, _ = self.next_due()
        return args[0] if function is Mail.arrive else None

    def _receive(self, host: Host, letter: Letter) -> None:
        if letter.source in self.hosts:
            host.heard_at_s = self.now_s
        self.take(host, _event(letter), letter)

    # --- the witness ----------------------------------------------------------------------------

    def add_witness(self, rate: float, timeout_s: float) -> None:
        """The third machine, with an empty disk, running. `timeout_s`: T by its configuration."""
        self.witness = Witness(Clock(rate))
        self.begin_witness(timeout_s)

    def begin_witness(self, timeout_s: float) -> None:
        """Its process starts, from its record."""
        witness = self.witness
        assert witness is not None
        witness.runs += 1
        witness.voter = self.core.voter.begin(
            witness.disk or Durable(),
            witness.clock.read(self.now_s),
            timeout_s=timeout_s,
            forgot=witness.disk is None,
        )
        witness.disk = witness.voter.durable

    def in_witness(self, function: Happening, *args: Any) -> None:
        """`function(world, *args)` inside the witness: now, when it is thawed, or never."""
        witness = self.witness
        if witness is None or witness.voter is None:
            return
        if witness.is_frozen:
            witness.backlog = (*witness.backlog, (function, args))
        else:
            function(self, *args)

    def _decide(self, letter: Letter) -> None:
        witness = self.witness
        assert witness is not None
        assert witness.voter is not None
        before, ballot = witness.voter, self.core.ballot
        now = witness.clock.read(self.now_s)
        witness.voter, answer = ballot.decide(before, letter.body, now, witness.me)
        takes_s = 0.0
        if ballot.needs_save(before, witness.voter, None):
            takes_s = self.pace.save_s
            witness.disk = witness.voter.durable
            term, holder = witness.disk.term, witness.disk.holder
            word = "released by" if witness.disk.released else "granted to"
            self.tell(Role.WITNESS, f"term {term} is {word} the {holder and holder.role}")
        if takes_s or (isinstance(letter.body, Beat) and letter.body.renews):
            self.spoke = Role.WITNESS
        self.answer(letter, answer, takes_s)


def _event(letter: Letter) -> Event:
    """What arrives, as the core is told of it."""
    body, question = letter.body, letter.question
    match body:
        case Beat():
            return HeartbeatReceived(letter.number, body)
        case VoteRequest():
            return VoteRequested(letter.number, body)
        case ReleaseRequest():
            return ReleaseReceived(letter.number, body)
        case BeatAnswer():
            assert question is not None
            assert isinstance(question.body, Beat)
            asked = question.body
            return HeartbeatAnswered(letter.source, question.sent_clock_s, asked.term, body)
        case VoteAnswer():
            assert question is not None
            return VoteAnswered(letter.source, question.sent_clock_s, body)
        case ReleaseAnswer():
            return ReleaseAnswered(letter.source, body)
        case _:
            assert_never(body)
