"""What a node knows.

Everything here is immutable: `step` answers with a new `State`. Moments (`_at_s`, `_until_s`) are
seconds on the node's own CLOCK_BOOTTIME and mean nothing on another machine; lengths end in `_s`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum, unique

from failover_agent.core.managed import Containers, ContainerState, ContainerView, Health, Spec
from failover_agent.core.policy import Role

__all__ = ["ContainerState", "ContainerView", "Containers", "Health", "State"]

FOREVER = float("inf")
NEVER = float("-inf")


@unique
class Phase(StrEnum):
    """Where the state machine is (design, section 2)."""

    STARTING = "starting"
    STANDBY = "standby"
    ACQUIRING = "acquiring"
    FENCING = "fencing"
    PROMOTING = "promoting"
    ACTIVE = "active"
    DEMOTING = "demoting"
    FAILED = "failed"


HOLDING_PHASES = frozenset(
    {Phase.FENCING, Phase.PROMOTING, Phase.ACTIVE, Phase.DEMOTING, Phase.FAILED}
)
"""The phases in which a node may hold the term; `State.is_holding` says whether it does. With an
arbiter a node that fences holds it already; in a plain pair the fence stands for a vote."""


@unique
class Reason(StrEnum):
    """Why a phase was entered; shared by log, journal, API and history."""

    AGENT_STARTED = "agent_started"
    PEER_ACTIVE = "peer_active"
    PEER_PREFERRED = "peer_preferred"
    PEER_SILENT = "peer_silent"
    PEER_RELEASED = "peer_released"
    FIRST_START = "first_start"
    NOBODY_ACTIVE = "nobody_active"
    RESUMED = "resumed"
    VOTE_REFUSED = "vote_refused"
    HIGHER_PREFERENCE = "higher_preference"
    NOT_ABLE = "not_able"
    START_FAILED = "start_failed"
    CONTAINER_DOWN = "container_down"
    ENGINE_LOST = "engine_lost"
    NEWER_TERM = "newer_term"
    LEASE_LOST = "lease_lost"
    OPERATOR = "operator"
    AGENT_STOPPING = "agent_stopping"
    ALL_STOPPED = "all_stopped"
    STOP_NOT_CONFIRMED = "stop_not_confirmed"
    REPAIRED = "repaired"
    RECORD_NOT_WRITABLE = "record_not_writable"
    GUARD_KILL = "guard_kill"


@dataclass(frozen=True, slots=True)
class Holder:
    """Whom a promise names (V1)."""

    role: Role
    node_id: str


@dataclass(frozen=True, slots=True)
class Promise:
    """A voter's word: it names nobody else before `until_s` on its own clock (V1, V8).

    `until_s` is FOREVER while the promise is on hold.
    """

    holder: Holder
    term: int
    until_s: float


@dataclass(frozen=True)
class Durable:
    """What must survive a crash; saved before anything that relies on it is said or done.

    `term` is the highest term granted to anyone, `holder` the node it was granted to, `released`
    whether that holder gave it back, `led` whether this node won that term and led in it, `hold`
    whether the promise is without an end (V8). `heard` are the members heard since the record
    began, `peer_fingerprint` the last that one of them said (V9). Before the first grant `holder`
    is None.
    """

    term: int = 0
    holder: Holder | None = None
    released: bool = True
    led: bool = False
    hold: bool = False
    longest_lease_s: float = 0.0
    heard: frozenset[Role] = frozenset()
    peer_fingerprint: str = ""
    on_hold_for_flapping: bool = False


@unique
class Readiness(StrEnum):
    """Could this standby take over? `differs`: from a dead peer yes, by a handover no."""

    READY = "ready"
    DIFFERS = "differs"
    CANNOT = "cannot"


@dataclass(frozen=True, slots=True)
class Profile:
    """What should be alike on both nodes, and is long: said to who does not have it yet.

    `specs`: how each container was made, `settings` those of the pair, as (name, value).
    """

    specs: tuple[Spec, ...]
    settings: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class PathView:
    """One endpoint of another voter, and whether what is said there is answered.

    `is_answering` None: nothing has come of it yet. `silent_since_s`, while it does not answer:
    when its last answer came, or, before the first, when the first message left. `error` says
    why, for people. None of it is ever a reason to decide anything: that is what the peer is for.
    """

    endpoint: str
    is_answering: bool | None = None
    silent_since_s: float | None = None
    error: str = ""


@dataclass(frozen=True)
class PeerView:
    """What another voter last said, and when. Nothing here is a promise of ours.

    `heard_at_s` is the arrival of its last authentic message, of either direction; `silent_since_s`
    is from when silence counts (it starts anew after our own absence). `leading_at_s` is the moment
    on our clock since when, by its own word, it has been active. `released_term`: the highest term
    it told us it gave back; a beat that holds that one or an older is late, and proves nothing.
    `profile_digest` is that of the profile it has now, `profile` the profile itself, None while we
    do not have it; `knows_digest` is that of ours which it has, all by its newest beat.
    `ending_run`: the run of it that handed over to us because it was told to stop.
    `beat_number`: of its newest beat. `promised_to`, `promised_until_s`: how the promise of an
    arbiter stood when it last spoke. `paths`: its endpoints, in the order of the configuration.
    """

    role: Role
    node_id: str | None = None
    run_id: str | None = None
    fingerprint: str | None = None
    heard_at_s: float | None = None
    silent_since_s: float = 0.0
    phase: Phase | None = None
    term: int | None = None
    holding: bool = False
    holder: Role | None = None
    released: bool | None = None
    health: Health | None = None
    running: int | None = None
    readiness: Readiness | None = None
    not_ready_because: tuple[str, ...] = ()
    may_lead: bool = True
    leading_at_s: float | None = None
    profile_digest: str = ""
    knows_digest: str = ""
    profile: Profile | None = None
    released_term: int = 0
    ending_run: str | None = None
    beat_number: int = 0
    longest_lease_s: float = 0.0
    promised_to: Holder | None = None
    promised_until_s: float = 0.0
    error: str = ""
    paths: tuple[PathView, ...] = ()


@dataclass(frozen=True, slots=True)
class EngineView:
    """The Docker Engine: `reachable` None before the first snapshot. `withheld`: what it tells only
    in snapshots, because it may not be asked for there; "" for nothing. `policy_error`: why the
    last order to set a restart policy to "no" was not carried out.
    """

    reachable: bool | None = None
    lost_at_s: float | None = None
    error: str = ""
    withheld: str = ""
    policy_error: str = ""


@unique
class Stage(StrEnum):
    """How far a candidacy has come (H0)."""

    POLL = "poll"
    ASK = "ask"


@dataclass(frozen=True, slots=True)
class Candidacy:
    """This node asks leave to be active.

    `granted` are the voters that said yes in this stage, this node included; `asked_at_s` is when
    the question of this stage was last sent, None before. `silence_counts`: when it began, silence
    stood for a vote (table of section 4); `by_word`: the operator's word does. `unable` are those
    that answered this candidacy that they could not vote, and hold nothing themselves. Answers to
    what was sent before `begun_at_s` belong to an earlier one. `answered_at_s`: when the question
    left that each voter said yes to (H1). `fenced`: the members whose vote a fence stands for.
    """

    stage: Stage
    term: int
    reason: Reason
    begun_at_s: float
    granted: frozenset[Role]
    refused: frozenset[Role] = frozenset()
    unable: frozenset[Role] = frozenset()
    answered_at_s: Mapping[Role, float] = field(default_factory=dict)
    fenced: frozenset[Role] = frozenset()
    asked_at_s: float | None = None
    silence_counts: bool = False
    by_word: bool = False


@dataclass(frozen=True, slots=True)
class Handover:
    """This node gives the service up (H5): to `to`, or because somebody has it already (None).

    Until `is_stopping` it only asks the peer to prepare, `asked_at_s` being when it last did, and
    may still change its mind. A yes counts only to a question sent since `decided_at_s`.
    """

    to: Role | None
    reason: Reason
    decided_at_s: float
    asked_at_s: float
    is_stopping: bool = False


@dataclass(frozen=True, slots=True)
class Fencing:
    """fence_command is to run, or runs, against `target`; only its success moves on (section 4)."""

    term: int
    target: Role
    reason: Reason
    is_running: bool = False
    failures: int = 0
    error: str = ""
    retry_at_s: float = 0.0


@dataclass(frozen=True, slots=True)
class PendingRelease:
    """A release is said until it is answered (H5); `to` None names nobody.

    With an arbiter by every voter that `answered` does not name, until its promise is over anyway.
    """

    term: int
    to: Role | None
    reason: Reason
    next_at_s: float
    until_s: float = FOREVER
    answered: frozenset[Role] = frozenset()


@dataclass(frozen=True, slots=True)
class Stopping:
    """SIGTERM came: `leave` is set once the containers are to be left running on hold (V8)."""

    asked_at_s: float
    leave: bool
    host_is_shutting_down: bool = False


@dataclass(frozen=True, slots=True)
class Alarm:
    """An open condition with a code, a sentence and a start.

    `State.alarms` has it under its code, and where there may be several of that code, under "CODE
    WHICH".
    """

    code: str
    sentence: str
    since_s: float


@dataclass(frozen=True, slots=True)
class Conflict:
    """A message that shows a wrong set-up: `kind` is the alarm code (V9).

    `endpoint`: which of ours leads there, "" where it was said to us or is not known.
    """

    kind: str
    detail: str
    seen_at_s: float
    node_id: str = ""
    holding: bool = False
    may_lead: bool = False
    received: bool = False
    endpoint: str = ""


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two actives met: from when both ran, by our clock, and when it ended here."""

    began_at_s: float
    ended_at_s: float | None = None


@dataclass(frozen=True, slots=True)
class Counters:
    """Since this process started."""

    stale: int = 0
    rejected: int = 0
    promotions: int = 0
    overlaps: int = 0


@dataclass(frozen=True)
class State:
    """Everything a node knows. Made by `startup.begin`, changed by `step` alone.

    `may_resume`: the agent was restarted, on the same boot, while it held its term (H6).
    `held_term`: the term this node holds, None when it holds none. `promoted_at_s`: when its
    containers were last all started by a promotion. `leading_at_s`: since when it may run its own.
    `start_job`, `stop_job`: the term of an order to the container lane that is not answered yet,
    and `stop_names` the containers it stops;
    `repairing`, `managing`: the containers with such an order each. `leaderless_at_s`: since when
    nobody has been seen to hold a term, `refusals` how many candidacies failed meanwhile.
    `prepared_for`: why the holder last asked us
    to prepare; `invitation`: it released, naming this node, for this reason.
    `newest_renewal`: the run and number of the newest beat that this node renewed by.
    `grants_after_s`: no candidacy is granted before (V4); `forgot`: there was no record.
    `is_first`: nor has any voter told of a term since, so that the pair was never led, and what
    runs here was started by its people.
    `hold_ends_at_s`: the end that the guard was told of before the first renewal after a hold (V8).
    `woke_at_s`: when this agent last stepped after it had not for some beats. `lease_until_s`: how
    long the lease of the agent before this one runs (H6). `recovers_at_s`: until then this agent
    comes after one that its guard had to kill, with its containers (G2). `renewed_at_s`: when
    the newest beat left that each other voter granted in the held term (H1); `on_hold_at`: the
    voters whose newest word is that they hold (V8). `guarded`: the term in which the guard has
    said that it watches (G1). `is_guard_armed`: it may have something to kill. `step_at`: which
    entry of the promotion is under way. `is_killing`: the stop under way waits for nobody (H3).
    `beats`: how many were said. `not_able_until_s`: the last start here
    failed (`failed_because`), so nobody should hand over to us before.
    """

    role: Role
    node_id: str
    run_id: str
    may_resume: bool
    boot_is_new: bool
    durable: Durable
    phase: Phase
    reason: Reason
    since_s: float
    started_at_s: float
    stepped_at_s: float
    next_beat_at_s: float
    peers: Mapping[Role, PeerView]
    containers: Containers
    engine: EngineView = EngineView()
    promise: Promise | None = None
    newest_renewal: tuple[str, int] = ("", 0)
    grants_after_s: float = 0.0
    forgot: bool = False
    is_first: bool = False
    beats: int = 0
    held_term: int | None = None
    lease_until_s: float = NEVER
    recovers_at_s: float = NEVER
    woke_at_s: float = NEVER
    hold_ends_at_s: float | None = None
    renewed_at_s: Mapping[Role, float] = field(default_factory=dict)
    on_hold_at: frozenset[Role] = frozenset()
    guarded: int | None = None
    guard_error: str = ""
    is_guard_armed: bool = False
    step_at: int = 0
    fencing: Fencing | None = None
    is_killing: bool = False
    promoted_at_s: float | None = None
    leading_at_s: float | None = None
    start_job: int | None = None
    stop_job: int | None = None
    stop_names: tuple[str, ...] = ()
    repairing: frozenset[str] = frozenset()
    managing: frozenset[str] = frozenset()
    leaderless_at_s: float | None = None
    refusals: int = 0
    refused_because: str = ""
    prepared_for: Reason | None = None
    invitation: Reason | None = None
    candidacy: Candidacy | None = None
    ask_again_at_s: float = 0.0
    handover: Handover | None = None
    release: PendingRelease | None = None
    stand_back_until_s: float = 0.0
    retry_at_s: float = 0.0
    failures: int = 0
    not_able_until_s: float = 0.0
    failed_because: str = ""
    stopping: Stopping | None = None
    record_error: str = ""
    moves_at_s: tuple[float, ...] = ()
    conflicts: Mapping[str, Conflict] = field(default_factory=dict)
    overlap: Overlap | None = None
    counters: Counters = Counters()
    alarms: Mapping[str, Alarm] = field(default_factory=dict)

    @property
    def me(self) -> Holder:
        """This node, as promises name it."""
        return Holder(self.role, self.node_id)

    @property
    def led_and_kept(self) -> bool:
        """Does the record say that this node led in the newest term it knows and never released?"""
        durable = self.durable
        return durable.holder == self.me and durable.led and not durable.released

    @property
    def may_save(self) -> bool:
        """May a step change the durable part? Not while the record cannot be written."""
        return not self.record_error

    @property
    def is_holding(self) -> bool:
        """Does this node hold a term: may it run containers?"""
        return self.held_term is not None
