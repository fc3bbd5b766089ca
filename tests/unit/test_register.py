"""The register in the place of an arbiter: what one node sees of it, decides by it, and writes."""

from dataclasses import dataclass, field, replace
from random import Random

import pytest

from failover_agent.core import register
from failover_agent.core.messages import (
    LONGEST_LEASE_S,
    Answer,
    Beat,
    BeatAnswer,
    Refusal,
    ReleaseAnswer,
    ReleaseRequest,
    Request,
    Sender,
    Vote,
    VoteAnswer,
    VoteKind,
    VoteRequest,
)
from failover_agent.core.policy import Role
from failover_agent.core.register import Entry, Overtaken, Read, Snapshot, View, Write
from failover_agent.core.state import FOREVER, Health, Holder, Phase, Readiness, Reason
from failover_agent.core.voter import CLOCK_DRIFT

LEASE_S = 10.0
PRIMARY = Sender(Role.PRIMARY, "node-p", "run", "same")
BACKUP = Sender(Role.BACKUP, "node-b", "run", "same")
THE_PRIMARY, THE_BACKUP = Holder(Role.PRIMARY, "node-p"), Holder(Role.BACKUP, "node-b")
PROMISED = Entry(THE_PRIMARY, term=3, lease_s=LEASE_S)
GIVEN_BACK = replace(PROMISED, released=True)


def beat(
    sender: Sender = PRIMARY,
    term: int = 3,
    *,
    number: int = 1,
    renews: bool = True,
    hold: bool = False,
    lease_s: float = LEASE_S,
    longest_lease_s: float = 0.0,
) -> Beat:
    return Beat(
        sender=sender,
        number=number,
        phase=Phase.ACTIVE,
        term=term,
        renews=renews,
        hold=hold,
        lease_s=lease_s,
        longest_lease_s=longest_lease_s,
        holder=None,
        released=False,
        leading_for_s=None,
        health=Health.OK,
        running=0,
        readiness=Readiness.READY,
        not_ready_because=(),
        may_lead=True,
    )


def question(
    kind: VoteKind = VoteKind.CANDIDACY,
    term: int = 4,
    sender: Sender = BACKUP,
    *,
    reason: Reason = Reason.PEER_SILENT,
) -> VoteRequest:
    return VoteRequest(sender, kind, term, LEASE_S, LEASE_S, reason)


def released(term: int = 3, sender: Sender = PRIMARY) -> ReleaseRequest:
    return ReleaseRequest(sender, term, None, Reason.OPERATOR)


def shows(entry: Entry | None, revision: int = 7, *, store: str = "store") -> Snapshot:
    return Snapshot(store, revision, 0 if entry is None else revision, entry)


def seen(entry: Entry | None, at_s: float = 100.0, *, me: Sender = BACKUP) -> View:
    """What `me` knows that saw this once, and has begun with questions of LEASE_S."""
    view = register.begun(View(register.speaker(me)), question(sender=me))
    return register.saw(view, shows(entry), asked_at_s=at_s - 0.1, now=at_s)


def move(view: View, request: Request, now: float, *, is_fresh: bool = True) -> register.Move:
    return register.next_move(register.begun(view, request), request, now, is_fresh=is_fresh)


def written(view: View, request: Request, now: float = 101.0) -> Write:
    wanted = move(view, request, now, is_fresh=False)
    assert isinstance(wanted, Write), wanted
    return wanted


def vote_in(answer: object) -> Vote:
    assert isinstance(answer, BeatAnswer | VoteAnswer), answer
    assert answer.vote is not None
    return answer.vote


def refused(view: View, request: Request, now: float = 101.0) -> Refusal | None:
    """Said after a look, and not before one."""
    assert move(view, request, now, is_fresh=False) == Read()
    vote = vote_in(move(view, request, now))
    assert not vote.granted
    return vote.refusal


# --- what a node has seen -------------------------------------------------------------------------


def test_who_has_seen_nothing_reads_first() -> None:
    view = View(register.speaker(PRIMARY))

    for request in (beat(), question(), released()):
        assert move(view, request, 100.0) == Read()


def test_a_promise_begins_with_the_first_answer_that_showed_it() -> None:
    view = seen(PROMISED, 100.0)
    for now in (103.0, 106.0):
        view = register.saw(view, shows(PROMISED, 7), asked_at_s=now - 1, now=now)

    assert refused(view, question(), 110.09) is Refusal.PROMISED
    assert vote_in(move(view, question(), 106.0)).remaining_s == pytest.approx(4.1)
    assert written(view, question(), 110.11).entry == Entry(THE_BACKUP, 4, LEASE_S)


def test_a_renewal_begins_it_anew() -> None:
    view = seen(PROMISED, 100.0)
    view = register.saw(view, shows(PROMISED, 9), asked_at_s=104.0, now=105.0)

    assert refused(view, question(), 115.0) is Refusal.PROMISED
    assert written(view, question(), 115.2).mod_revision == 9


def test_whom_a_store_names_that_went_back_is_not_served_before_the_others() -> None:
    """An old backup of the store names the one; the other leads since, by the store alone."""
    view = seen(Entry(THE_PRIMARY, 9, LEASE_S), 100.0)
    old = Entry(THE_BACKUP, 3, LEASE_S)
    view = register.saw(view, shows(old, 5), asked_at_s=100.5, now=101.0)

    assert refused(view, question(), 111.0) is Refusal.JUST_STARTED
    assert written(view, question(), 111.2).mod_revision == 5


def test_other_keys_of_the_store_do_not() -> None:
    view = seen(PROMISED, 100.0)
    other = replace(shows(PROMISED), revision=900)
    view = register.saw(view, other, asked_at_s=104.0, now=105.0)

    assert written(view, question(), 110.2).mod_revision == 7


def test_an_answer_that_was_overtaken_moves_nothing_back() -> None:
    view = seen(PROMISED, 100.0)
    renewed = register.saw(view, shows(PROMISED, 9), asked_at_s=104.0, now=105.0)

    assert register.saw(renewed, shows(PROMISED, 7), asked_at_s=104.5, now=106.0) == renewed
    assert register.saw(renewed, shows(None, 6), asked_at_s=105.0, now=106.0) == renewed
    # And one of the same moment does not make it older either.
    again = register.saw(renewed, shows(PROMISED, 9), asked_at_s=103.0, now=104.9)
    assert again == renewed


@pytest.mark.parametrize(
    "snapshot",
    [shows(GIVEN_BACK, 5), shows(GIVEN_BACK, 50, store="another"), shows(None, 50)],
    ids=["older", "another", "deleted"],
)
def test_a_store_that_forgot_waits_as_a_voter_does(snapshot: Snapshot) -> None:
    view = seen(PROMISED, 100.0)
    view = register.saw(view, snapshot, asked_at_s=119.0, now=120.0)

    assert refused(view, question(), 130.0) is Refusal.JUST_STARTED
    assert written(view, question(), 130.2).mod_revision == snapshot.mod_revision
    # Its holder is served throughout, and giving back what is not known shortens nothing.
    renewal = written(view, beat(term=5), 121.0)
    view = register.saw(view, shows(renewal.entry, 60), asked_at_s=121.0, now=122.0)
    view = register.saw(
        view, shows(replace(renewal.entry, released=True), 61), asked_at_s=122.5, now=123.0
    )
    assert refused(view, question(term=6), 130.0) is Refusal.JUST_STARTED


def test_a_new_pair_waits_the_longest_lease_that_anybody_knows_of() -> None:
    view = seen(None, 100.0)
    view = register.begun(view, beat(BACKUP, renews=False, longest_lease_s=20.0))

    assert refused(view, question(), 120.1) is Refusal.JUST_STARTED
    write = written(view, question(term=1), 120.3)
    assert (write.mod_revision, write.entry) == (0, Entry(THE_BACKUP, 1, LEASE_S))


def test_nobody_waits_longer_than_the_longest_lease_that_is_ever_promised() -> None:
    view = seen(None, 100.0)
    view = register.begun(view, beat(BACKUP, renews=False, longest_lease_s=1e9))

    longest_s = LONGEST_LEASE_S * 1.01
    assert written(view, question(term=1), 100.0 + longest_s + 1).mod_revision == 0


def test_the_length_in_an_entry_is_remembered_when_the_key_is_gone() -> None:
    view = seen(replace(PROMISED, lease_s=30.0), 100.0)
    view = register.saw(view, shows(None, 8), asked_at_s=101.0, now=102.0)

    assert refused(view, question(), 102.0 + 30.0) is Refusal.JUST_STARTED


# --- renewals -------------------------------------------------------------------------------------


def test_the_holder_renews_by_what_it_saw_last() -> None:
    view = seen(PROMISED, me=PRIMARY)

    write = written(view, beat(), 200.0)

    assert (write.mod_revision, write.entry) == (7, PROMISED)
    vote = vote_in(write.answer)
    assert (vote.granted, vote.term, vote.holder) == (True, 3, THE_PRIMARY)
    assert vote.remaining_s == pytest.approx(10.1)


def test_a_holder_that_was_replaced_hears_so_after_a_look() -> None:
    view = seen(Entry(THE_BACKUP, 4, LEASE_S), me=PRIMARY)

    assert refused(view, beat()) is Refusal.PROMISED
    assert refused(view, beat(), 200.0) is Refusal.OLD_TERM


def test_a_term_that_was_given_back_is_over() -> None:
    assert refused(seen(GIVEN_BACK, me=PRIMARY), beat()) is Refusal.OLD_TERM


def test_a_holder_takes_its_promise_along_into_a_higher_term() -> None:
    write = written(seen(PROMISED, me=PRIMARY), beat(term=5))

    assert write.entry == Entry(THE_PRIMARY, 5, LEASE_S)


def test_a_promise_does_not_get_shorter_within_its_term() -> None:
    view = seen(PROMISED, me=PRIMARY)

    assert written(view, beat(lease_s=4.0)).entry.lease_s == LEASE_S
    assert written(view, beat(lease_s=14.0)).entry.lease_s == 14.0
    assert written(view, beat(term=4, lease_s=4.0)).entry.lease_s == 4.0


def test_a_hold_has_no_end_until_the_holder_renews_without_one() -> None:
    write = written(seen(PROMISED, me=PRIMARY), beat(hold=True))
    assert write.entry == replace(PROMISED, hold=True)
    assert vote_in(write.answer).remaining_s == FOREVER

    held = seen(write.entry, 100.0)
    assert refused(held, question(), 9999.0) is Refusal.PROMISED
    assert written(held, question(reason=Reason.OPERATOR)).entry.hold is False
    assert written(seen(write.entry, me=PRIMARY), beat()).entry == PROMISED


def test_an_older_beat_writes_no_more_once_a_newer_one_has_begun() -> None:
    view = register.begun(seen(PROMISED, me=PRIMARY), beat(number=6, hold=True))

    assert move(view, beat(number=5), 101.0) == Overtaken()
    assert isinstance(move(view, beat(number=6, hold=True), 101.0), Write)
    assert isinstance(move(view, beat(number=5, renews=False), 101.0), BeatAnswer)
    # A beat that asks for nothing overtakes none that does.
    view = register.begun(view, beat(number=7, renews=False))
    assert isinstance(move(view, beat(number=6), 101.0), Write)


# --- looks, polls, candidacies --------------------------------------------------------------------


def test_a_candidacy_writes_no_more_once_its_run_has_asked_for_a_hold() -> None:
    """It may have asked for a higher term in place (H7), and is under way still."""
    view = register.begun(seen(replace(PROMISED, hold=True), me=PRIMARY), beat(number=6, hold=True))
    asked = question(VoteKind.CANDIDACY, 9, sender=PRIMARY)

    assert move(view, asked, 101.0) == Overtaken()
    back = register.begun(view, beat(number=7))
    assert written(back, asked).entry.term == 9, "it stays, and may ask again"


def test_a_beat_that_does_not_renew_asks_how_the_promise_stands() -> None:
    view = seen(PROMISED)
    look = beat(BACKUP, renews=False)

    assert move(view, look, 101.0, is_fresh=False) == Read()
    answer = move(view, look, 104.0)
    assert isinstance(answer, BeatAnswer)
    assert (answer.sender, answer.beat) == (Sender(Role.WITNESS, "etcd", "", "same"), None)
    vote = vote_in(answer)
    assert vote == Vote(False, 3, THE_PRIMARY, vote.remaining_s, None)
    assert vote.remaining_s == pytest.approx(6.1)


def test_a_poll_promises_nothing_and_is_said_after_a_look() -> None:
    view = seen(GIVEN_BACK)
    poll = question(VoteKind.POLL, 0)

    assert move(view, poll, 101.0, is_fresh=False) == Read()
    answer = move(view, poll, 101.0)
    assert isinstance(answer, VoteAnswer)
    assert (answer.kind, answer.asked_term, answer.phase) == (VoteKind.POLL, 0, None)
    assert vote_in(answer) == Vote(True, 3, None, None, None)


def test_nobody_hands_over_to_a_register() -> None:
    prepare = question(VoteKind.PREPARE, 3, PRIMARY)

    assert refused(seen(PROMISED, me=PRIMARY), prepare) is Refusal.NOT_READY


def test_a_candidate_needs_a_higher_term_than_the_one_given_back() -> None:
    assert refused(seen(GIVEN_BACK), question(term=3)) is Refusal.OLD_TERM
    assert written(seen(GIVEN_BACK), question(term=4)).entry == Entry(THE_BACKUP, 4, LEASE_S)


def test_a_candidate_whose_answer_was_lost_asks_for_the_same_term_again() -> None:
    view = seen(Entry(THE_BACKUP, 4, LEASE_S))

    assert written(view, question(term=4)).entry == Entry(THE_BACKUP, 4, LEASE_S)


def test_a_release_is_written_once_and_answered_always() -> None:
    view = seen(PROMISED, me=PRIMARY)
    write = written(view, released())
    assert write.entry == GIVEN_BACK
    assert write.answer == ReleaseAnswer(view.sender, 3, 3)
    assert written(view, released(5)).entry == replace(GIVEN_BACK, term=5)
    assert written(seen(replace(PROMISED, hold=True)), released()).entry == GIVEN_BACK

    for entry, term in ((GIVEN_BACK, 3), (Entry(THE_BACKUP, 4, LEASE_S), 4), (None, 0)):
        view = seen(entry, me=PRIMARY)
        assert move(view, released(), 101.0, is_fresh=False) == Read()
        assert move(view, released(), 101.0) == ReleaseAnswer(view.sender, 3, term)


def test_a_write_is_put_where_nothing_was_written_since() -> None:
    before = shows(PROMISED, 7)
    write = written(seen(PROMISED, me=PRIMARY), beat(term=4))

    is_put, after = register.compare_and_set(replace(before, revision=20), write)
    assert (is_put, after) == (True, shows(write.entry, 21))
    assert register.compare_and_set(after, write) == (False, after)


# --- two nodes and a register, in whatever order --------------------------------------------------

RATES = [1 - CLOCK_DRIFT / 2, 1.0, 1 + CLOCK_DRIFT / 2]


@dataclass
class Order:
    """One order under way: what is asked now, and what the register said, which is on its way."""

    node: int
    request: Request
    asked_at_s: float = 0.0
    move: Read | Write = field(default_factory=Read)
    answer: tuple[bool, Snapshot] | None = None
    is_orphan: bool = False


@dataclass
class Node:
    """`leads_until_s` is real time. Terms up to `over` are given back; `newest_s` is when the
    newest question left that was granted, `plain_s` when the last renewal without a hold began.
    """

    me: Sender
    rate: float
    view: View
    number: int = 0
    term: int = 0
    over: int = 0
    newest_s: float = -1.0
    plain_s: float = -1.0
    leads_until_s: float = -1.0


class World:
    """Two nodes with clocks of their own, one register, and messages that take any time."""

    def __init__(self, *rates: float) -> None:
        """Both have seen the key, and waited as one does before the first term (V4)."""
        self.now = 1000.0
        self.store = Snapshot("store", 1)
        self.nodes = [
            Node(me, rate, View(register.speaker(me)))
            for me, rate in zip((PRIMARY, BACKUP), rates, strict=True)
        ]
        self.orders: list[Order] = []
        self.do(0, "look")
        self.do(1, "look")
        self.now += 2 * LEASE_S

    def clock(self, node: Node) -> float:
        return self.now * node.rate

    def leads(self, node: Node) -> bool:
        return self.now < node.leads_until_s

    def order(self, which: int, kind: str) -> None:
        """What a core would order now; nothing where it would not."""
        node = self.nodes[which]
        request: Request
        node.number += 1
        if kind in ("renew", "hold"):
            if not self.leads(node):
                return
            request = beat(node.me, node.term, number=node.number, hold=kind == "hold")
            if kind == "renew":
                # It may end a hold without our hearing of it: from now on we rely on none before.
                node.plain_s = self.clock(node)
                node.leads_until_s = min(node.leads_until_s, self._ends_s(node, node.plain_s))
        elif kind == "ask":
            if self.leads(node):
                return
            node.over, node.term = node.term, node.term + 1
            request = question(VoteKind.CANDIDACY, node.term, node.me)
        elif kind == "release":
            node.over, node.leads_until_s = node.term, -1.0
            request = released(node.term, node.me)
        else:
            request = beat(node.me, node.term, number=node.number, renews=False)
        node.view = register.begun(node.view, request)
        self._go_on(Order(which, request), is_fresh=False)

    def do(self, which: int, kind: str) -> None:
        """The same, and nothing comes in between."""
        before = list(self.orders)
        self.order(which, kind)
        while new := [order for order in self.orders if order not in before]:
            self.reach(self.orders.index(new[0]))
            self.arrive(self.orders.index(new[0]))

    def reach(self, which: int) -> None:
        """A message reaches the register, once."""
        order = self.orders[which % len(self.orders)]
        if order.answer is None:
            order.answer = False, self.store
            if isinstance(order.move, Write):
                order.answer = register.compare_and_set(self.store, order.move)
                self.store = order.answer[1]

    def arrive(self, which: int) -> None:
        """What the register said arrives."""
        order = self.orders[which % len(self.orders)]
        if order.answer is None:
            return
        self.orders.remove(order)
        if order.is_orphan:
            return
        node = self.nodes[order.node]
        is_put, snapshot = order.answer
        asked_at_s, now = order.asked_at_s, self.clock(node)
        node.view = register.saw(node.view, snapshot, asked_at_s=asked_at_s, now=now)
        if is_put:
            assert isinstance(order.move, Write)
            self._answered(order, order.move.answer)
        else:
            self._go_on(order, is_fresh=True)

    def again(self, which: int) -> None:
        """Another member is asked too; what the first was told may still reach the register."""
        order = self.orders[which % len(self.orders)]
        if not order.is_orphan:
            self._go_on(Order(order.node, order.request), is_fresh=False)

    def restart(self, which: int) -> None:
        """The agent begins anew, with nothing running; what it wrote may still reach the register,
        and nobody hears of it.
        """
        node = self.nodes[which]
        for order in self.orders:
            order.is_orphan |= order.node == which
        view = View(register.speaker(node.me))
        self.nodes[which] = replace(node, view=view, over=node.term, leads_until_s=-1.0)

    def _go_on(self, order: Order, *, is_fresh: bool) -> None:
        node = self.nodes[order.node]
        now = self.clock(node)
        wanted = register.next_move(node.view, order.request, now, is_fresh=is_fresh)
        if isinstance(wanted, Read | Write):
            order.asked_at_s, order.move, order.answer = now, wanted, None
            self.orders.append(order)
        elif not isinstance(wanted, Overtaken | ReleaseAnswer):
            self._answered(order, wanted)

    def _answered(self, order: Order, answer: Answer) -> None:
        """H1: a lease counts from when the newest question left."""
        node = self.nodes[order.node]
        if isinstance(answer, ReleaseAnswer):
            return
        vote = vote_in(answer)
        is_mine = vote.term == node.term > node.over
        if vote.granted and is_mine and order.asked_at_s > node.newest_s:
            node.newest_s = order.asked_at_s
            node.leads_until_s = self._ends_s(node, order.asked_at_s)
            if vote.remaining_s == FOREVER and order.asked_at_s >= node.plain_s:
                node.leads_until_s = FOREVER
        if vote.term > node.term:
            node.over = node.term = vote.term

    def _ends_s(self, node: Node, asked_at_s: float) -> float:
        return (asked_at_s + LEASE_S * (1 - CLOCK_DRIFT)) / node.rate


KINDS = ["renew", "renew", "hold", "ask", "ask", "look", "release"]
LENGTHS_S = [0.1, 1.0, 3.0, 9.9, 10.0, 10.05, 10.2]


def live(world: World, dice: Random) -> None:
    """One thing happens."""
    which, happening = dice.randrange(2), dice.random()
    if happening < 0.25:
        world.order(which, dice.choice(KINDS))
    elif happening < 0.5:
        world.do(which, dice.choice(KINDS))
    elif happening < 0.8:
        if world.orders:
            steps = [world.reach, world.reach, world.arrive, world.arrive, world.again]
            dice.choice(steps)(dice.randrange(len(world.orders)))
    elif happening < 0.95:
        world.now += dice.choice(LENGTHS_S)
    else:
        world.restart(which)


def test_two_never_lead_by_the_word_of_one_register() -> None:
    """Whatever is late, lost, overtaken or forgotten, and however the clocks drift."""
    led = {Role.PRIMARY: 0, Role.BACKUP: 0}
    for seed in range(1500):
        dice = Random(seed)
        world = World(dice.choice(RATES), dice.choice(RATES))
        for _ in range(60):
            live(world, dice)
            leading = [node.me.role for node in world.nodes if world.leads(node)]
            assert len(leading) < 2, f"both lead at {world.now} (seed {seed})"
            for role in leading:
                led[role] += 1

    assert min(led.values()) > 5000, "hardly anybody ever led: nothing was shown"
