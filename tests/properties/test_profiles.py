"""What a peer knows of how our containers are made, whatever becomes of the messages between.

Two nodes beat at each other while messages are lost, said twice and overtaken, agents restart, and
containers are made anew. A profile is told only to who does not have it; and never is an old one
taken for the new.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from failover_agent.core import machine, startup
from failover_agent.core.effects import Reply, SendHeartbeat
from failover_agent.core.events import (
    ContainerChanged,
    ContainerObservation,
    Event,
    HeartbeatAnswered,
    HeartbeatReceived,
    Tick,
)
from failover_agent.core.managed import digest
from failover_agent.core.messages import Beat, BeatAnswer
from failover_agent.core.policy import Policy, Role
from failover_agent.core.state import ContainerState, Durable, PeerView, State

OTHER = {Role.PRIMARY: Role.BACKUP, Role.BACKUP: Role.PRIMARY}
ROLES = st.sampled_from(sorted(OTHER))
NAMES = st.sampled_from(["beat", "deliver", "deliver twice", "lose", "restart", "make anew"])
ACTIONS = st.tuples(NAMES, ROLES, st.integers(0, 5), st.sampled_from("abc"))


@dataclass
class Pair:
    """Two nodes and what is under way between them, in any order."""

    now: float = 1000.0
    runs: int = 0
    states: dict[Role, State] = field(default_factory=dict)
    images: dict[Role, str] = field(default_factory=lambda: dict.fromkeys(OTHER, "a"))
    mail: list[tuple[Role, Event]] = field(default_factory=list)
    told: list[Beat] = field(default_factory=list)

    def restart(self, role: Role) -> None:
        self.runs += 1
        self.states[role] = startup.begin(
            self._policy(role),
            node_id=f"node-{role}",
            run_id=f"run-{self.runs}",
            durable=Durable(term=1),
            record_lost=False,
            boot_is_new=False,
            now=self.now,
        )
        self.make_anew(role, self.images[role])

    def make_anew(self, role: Role, image: str) -> None:
        self.images[role] = image
        seen = ContainerObservation(
            "web", ContainerState.DOWN, "", True, False, f"{self.now}", image, "s", "no"
        )
        self.take(role, ContainerChanged(seen))

    def beat(self, role: Role) -> None:
        self.now += 1.0
        self.take(role, Tick())

    def take(self, role: Role, event: Event) -> None:
        step = machine.step(self.states[role], event, self.now, self._policy(role))
        self.states[role] = step.state
        for effect in step.effects:
            match effect:
                case SendHeartbeat():
                    self.told.append(effect.beat)
                    self.mail.append((effect.to, HeartbeatReceived(1, effect.beat)))
                case Reply(answer=BeatAnswer() as answer):
                    assert answer.beat is not None
                    self.told.append(answer.beat)
                    back = HeartbeatAnswered(role, self.now, 1, answer)
                    self.mail.append((OTHER[role], back))
                case _:
                    pass
        self.check()

    def peer(self, role: Role) -> PeerView:
        """The other node, as `role` knows it."""
        return self.states[role].peers[OTHER[role]]

    def check(self) -> None:
        """A profile that is known is the one that the newest word of the peer names."""
        for role in self.states:
            profile = self.peer(role).profile
            if profile is not None:
                named = digest(profile.specs) + digest(profile.settings)
                assert self.peer(role).profile_digest == named

    def _policy(self, role: Role) -> Policy:
        return Policy(role=role, containers=("web",), settings=(("node", role),))


@settings(deadline=None)
@given(st.lists(ACTIONS, max_size=60))
def test_a_profile_is_told_to_who_lacks_it_and_an_old_one_is_never_the_new(
    actions: list[tuple[str, Role, int, str]],
) -> None:
    pair = Pair()
    for role in OTHER:
        pair.restart(role)
    for name, role, at, image in actions:
        if name == "beat":
            pair.beat(role)
        elif name == "restart":
            pair.restart(role)
        elif name == "make anew":
            pair.make_anew(role, image)
        elif at < len(pair.mail):
            letter = pair.mail[at] if name == "deliver twice" else pair.mail.pop(at)
            if name != "lose":
                pair.take(*letter)

    # The wire is whole again: two intervals later each knows the other as it is.
    for _ in range(3):
        pair.told.clear()
        for role in OTHER:
            pair.beat(role)
            while pair.mail:
                pair.take(*pair.mail.pop(0))

    for role, other in OTHER.items():
        profile = pair.peer(role).profile
        assert profile is not None
        assert profile.specs == (("web", pair.images[other], "s"),)
        assert profile.settings == (("node", other),)
    assert pair.told
    assert all(beat.profile is None for beat in pair.told), "nobody is told what it knows"
