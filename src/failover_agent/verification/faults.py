"""The adversary: what can go wrong, and when it makes a difference to let it.

A fault of a node begins right after the node has said or done something; one of a link or a letter
when a letter arrives. In between nothing happens that it could change. How long it lasts is one of
a few lengths: well below T, about T, and above.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Any

from failover_agent.core.messages import Beat, BeatAnswer
from failover_agent.core.policy import Role
from failover_agent.verification import rules
from failover_agent.verification.machines import Host, Letter
from failover_agent.verification.world import World


@unique
class Kind(StrEnum):
    """What the adversary can do, as `Bounds.kinds` names it."""

    LOSE = "lose"
    DELAY = "delay"
    DUPLICATE = "duplicate"
    CUT = "cut"
    ISOLATE = "isolate"
    CRASH = "crash"
    LOSE_DISK = "lose the disk"
    KILL = "kill"
    FREEZE = "freeze"
    FREEZE_GUARD = "freeze the guard"
    WITNESS = "witness"


ALL = frozenset(Kind)


@dataclass(frozen=True, slots=True)
class Fault:
    """`do(world, *args)` lets it happen; `words` are for people, without a moment."""

    words: str
    do: Callable[..., None]
    args: tuple[Any, ...]


def apply(world: World, fault: Fault) -> None:
    """One fault is spent."""
    world.spent = (*world.spent, fault.words)
    world.tell("fault", fault.words, is_fault=True)
    fault.do(world, *fault.args)


def options(world: World, kinds: frozenset[Kind]) -> Iterator[Fault]:
    """What may go wrong here and now, before the next thing happens."""
    if world.spoke is Role.WITNESS:
        if Kind.WITNESS in kinds:
            yield from _of_witness(world)
    elif world.spoke is not None:
        yield from _of_node(world, world.hosts[world.spoke], kinds)
    letter = world.next_letter()
    if letter is not None and (letter.source, letter.target) not in world.cuts:
        yield from _of_letter(world, letter, kinds)


def _timeout_s(world: World) -> float:
    return world.hosts[Role.PRIMARY].policy.heartbeat_timeout_s


# --- letters and links --------------------------------------------------------------------------


def _of_letter(world: World, letter: Letter, kinds: frozenset[Kind]) -> Iterator[Fault]:
    body, way = letter.body, f"{letter.source} -> {letter.target}"
    timeout_s = _timeout_s(world)
    is_beat = isinstance(body, Beat)
    is_answered_beat = isinstance(body, BeatAnswer)
    name = _name(letter)
    counts = isinstance(body, Beat) and body.renews
    if isinstance(body, BeatAnswer):
        counts = body.vote is not None and body.vote.granted
    if Kind.LOSE in kinds and not is_answered_beat:
        yield Fault(f"lose {name} {way}", _lose, ())
    if Kind.DELAY in kinds and (counts or not (is_beat or is_answered_beat)):
        late_s = timeout_s * (0.5 if letter.question is not None else 1.2)
        yield Fault(f"delay {name} {way} by {late_s:g} s", _delay, (late_s,))
    if Kind.DUPLICATE in kinds and (counts or not is_beat) and letter.question is None:
        again_s = 1.2 * timeout_s
        yield Fault(f"duplicate {name} {way} after {again_s:g} s", _duplicate, (again_s,))
    if Kind.CUT in kinds and letter.question is None:
        one = ((letter.source, letter.target),)
        both = (*one, (letter.target, letter.source))
        for lasts_s in _lengths_s(timeout_s):
            yield Fault(f"cut {way} for {lasts_s:g} s", _cut, (one, lasts_s))
            words = f"cut {letter.source} <-> {letter.target} for {lasts_s:g} s"
            yield Fault(words, _cut, (both, lasts_s))


def _name(letter: Letter) -> str:
    words = {
        "Beat": "a beat",
        "BeatAnswer": "the answer to a beat",
        "VoteRequest": "a vote request",
        "VoteAnswer": "a vote",
        "ReleaseRequest": "a release",
        "ReleaseAnswer": "the answer to a release",
    }
    return words[type(letter.body).__name__]


def _lengths_s(timeout_s: float) -> tuple[float, float, float]:
    return (0.5 * timeout_s, timeout_s, 2.0 * timeout_s)


def _take_letter(world: World) -> Letter:
    letter = world.next_letter()
    assert letter is not None
    world.drop_next()
    return letter


def _lose(world: World) -> None:
    _take_letter(world)
    world.calm_since_s = world.now_s


def _delay(world: World, late_s: float) -> None:
    """A cut that begins meanwhile does not stop it: it may be past that already."""
    world.last(late_s, World.hand_in, _take_letter(world))


def _duplicate(world: World, again_s: float) -> None:
    letter = world.next_letter()
    assert letter is not None
    world.last(again_s, World.hand_in, letter)


def _cut(world: World, links: tuple[tuple[Role, Role], ...], lasts_s: float) -> None:
    world.cuts = tuple(sorted((*world.cuts, *links)))
    world.last(lasts_s, _mend, links)


def _mend(world: World, links: tuple[tuple[Role, Role], ...]) -> None:
    left = list(world.cuts)
    for link in links:
        left.remove(link)
    world.cuts = tuple(left)


# --- nodes --------------------------------------------------------------------------------------


def _of_node(world: World, host: Host, kinds: frozenset[Kind]) -> Iterator[Fault]:
    agent, role = host.agent, host.role
    if agent is None:
        return
    timeout_s = _timeout_s(world)
    short_s, medium_s, long_s = _lengths_s(timeout_s)
    if Kind.CRASH in kinds:
        for off_s in (short_s, 3 * timeout_s):
            yield Fault(f"{role}: the host crashes, back after {off_s:g} s", _crash, (role, off_s))
    if Kind.LOSE_DISK in kinds:
        words = f"{role}: the host crashes, back after {short_s:g} s with an empty disk"
        yield Fault(words, _crash_without_disk, (role, short_s))
    if host.is_guard_frozen:
        return  # Guard and agent dead or frozen together: what no software covers.
    if Kind.KILL in kinds:
        for off_s in (world.pace.restart_s, short_s, long_s):
            words = f"{role}: the agent is killed, back after {off_s:g} s"
            yield Fault(words, _kill, (role, off_s, False))
        if agent.saving is not None:
            words = f"{role}: the agent is killed right after its save, before it acts"
            yield Fault(words, _kill, (role, world.pace.restart_s, True))
    if Kind.FREEZE in kinds and not agent.is_frozen:
        for lasts_s in (short_s, medium_s, long_s):
            words = f"{role}: the agent is frozen for {lasts_s:g} s"
            yield Fault(words, _freeze, (role, lasts_s))
    if not host.policy.requires_lease:
        return
    if Kind.ISOLATE in kinds:
        yield from _of_wires(host, medium_s, long_s)
    if Kind.FREEZE_GUARD in kinds and not agent.is_frozen:
        words = f"{role}: the guard is frozen for {long_s:g} s"
        yield Fault(words, _freeze_guard, (role, long_s, False))
        if not host.is_alive:
            words = f"{role}: agent and guard are frozen for {long_s:g} s, and nothing runs there"
            yield Fault(words, _freeze_guard, (role, long_s, True))


def _of_wires(host: Host, medium_s: float, long_s: float) -> Iterator[Fault]:
    """All wires of a node at once, both ways or one."""
    role = host.role
    others = [it for it in host.policy.voters if it is not role]
    outward = tuple((role, other) for other in others)
    inward = tuple((other, role) for other in others)
    for lasts_s in (medium_s, long_s):
        words = f"{role}: isolated for {lasts_s:g} s"
        yield Fault(words, _cut, ((*outward, *inward), lasts_s))
    yield Fault(f"{role}: hears nothing for {long_s:g} s", _cut, (inward, long_s))
    yield Fault(f"{role}: is not heard for {long_s:g} s", _cut, (outward, long_s))


def _crash(world: World, role: Role, off_s: float) -> None:
    alive = [host.role for host in world.hosts.values() if host.is_alive]
    if alive == [role]:
        rules.crashed(world)
    world.power_off(role, off_s)


def _crash_without_disk(world: World, role: Role, off_s: float) -> None:
    _crash(world, role, off_s)
    world.hosts[role].record = None


def _kill(world: World, role: Role, off_s: float, is_saved: bool) -> None:
    host = world.hosts[role]
    if is_saved:
        world.write(host)
    world.end_agent(role)
    world.last(off_s, World.start_agent, role, host.boot)


def _freeze(world: World, role: Role, lasts_s: float) -> None:
    agent = world.hosts[role].agent
    assert agent is not None
    agent.is_frozen = True
    world.last(lasts_s, _thaw, role, agent.run)


def _thaw(world: World, role: Role, run: int) -> None:
    """Everything that waited is there at once: an old start call first, which is the worst."""
    host = world.hosts[role]
    agent = host.agent
    if agent is None or agent.run != run:
        return
    agent.is_frozen = False
    waiting, agent.backlog = agent.backlog, ()
    world.tell(role, "the agent is thawed")
    for function, args in sorted(waiting, key=lambda call: call[0] is not World.start_call):
        world.in_agent(role, run, function, *args)


def _freeze_guard(world: World, role: Role, lasts_s: float, agent_too: bool) -> None:
    host = world.hosts[role]
    assert host.agent is not None
    host.is_guard_frozen = True
    if agent_too:
        host.agent.is_frozen = True
    world.last(lasts_s, _thaw_guard, role, host.boot, host.agent.run, agent_too)


def _thaw_guard(world: World, role: Role, boot: int, run: int, agent_too: bool) -> None:
    host = world.hosts[role]
    if host.boot != boot or not host.is_on:
        return
    if agent_too:
        _thaw(world, role, run)
    mail, host.guard_mail = host.guard_mail, ()
    for word in mail:
        world.hear(host, word)  # It has given up waiting for an answer, if it lives.
    host.is_guard_frozen = False


# --- the witness --------------------------------------------------------------------------------


def _of_witness(world: World) -> Iterator[Fault]:
    witness, timeout_s = world.witness, _timeout_s(world)
    if witness is None or witness.voter is None or witness.is_frozen:
        return
    for off_s in (world.pace.restart_s, 0.5 * timeout_s, 2 * timeout_s):
        words = f"witness: ends, back after {off_s:g} s"
        yield Fault(words, _end_witness, (off_s, timeout_s, False))
    words = f"witness: ends, back after {world.pace.restart_s:g} s with an empty disk"
    yield Fault(words, _end_witness, (world.pace.restart_s, timeout_s, True))
    for role in world.hosts:
        words = (
            f"witness: moves to another machine, where the {role} reaches it after {timeout_s:g} s"
        )
        yield Fault(words, _move_witness, (role, timeout_s))
    for lasts_s in (timeout_s, 2 * timeout_s):
        yield Fault(f"witness: frozen for {lasts_s:g} s", _freeze_witness, (lasts_s,))


def _end_witness(world: World, off_s: float, timeout_s: float, loses_disk: bool) -> None:
    witness = world.witness
    assert witness is not None
    witness.voter = None
    if loses_disk:
        witness.disk = None
        witness.node_ids += 1
    world.last(off_s, World.begin_witness, timeout_s)


def _move_witness(world: World, role: Role, timeout_s: float) -> None:
    """Its disk goes with it, and one of the nodes finds it later than the other."""
    _end_witness(world, world.pace.restart_s, timeout_s, loses_disk=False)
    _cut(world, ((role, Role.WITNESS), (Role.WITNESS, role)), timeout_s)


def _freeze_witness(world: World, lasts_s: float) -> None:
    witness = world.witness
    assert witness is not None
    witness.is_frozen = True
    world.last(lasts_s, _thaw_witness)


def _thaw_witness(world: World) -> None:
    witness = world.witness
    assert witness is not None
    witness.is_frozen = False
    waiting, witness.backlog = witness.backlog, ()
    for function, args in waiting:
        world.in_witness(function, *args)
