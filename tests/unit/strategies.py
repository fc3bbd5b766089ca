"""What may be said on the wire, for Hypothesis: every field within its bounds."""

from hypothesis import strategies as st

from failover_agent.core.messages import (
    Beat,
    BeatAnswer,
    Refusal,
    ReleaseAnswer,
    ReleaseRequest,
    Sender,
    Vote,
    VoteAnswer,
    VoteKind,
    VoteRequest,
)
from failover_agent.core.policy import Role
from failover_agent.core.state import FOREVER, Health, Holder, Phase, Profile, Readiness, Reason
from failover_agent.protocol.wire import Hello, HelloAnswer, Kind

# A lone surrogate is no text: it cannot be sent, and to_json replaces it where people wrote it.
TEXT = st.characters(exclude_categories=["Cs"])

roles = st.sampled_from(Role)
numbers = st.integers(0, 2**53)
leases = st.floats(0, 3600)
identifiers = st.text("0123456789abcdef", min_size=1, max_size=64)
digests = st.text(TEXT, max_size=128)
names = st.text(TEXT, max_size=128)

_who = {"node_id": identifiers, "run_id": identifiers, "fingerprint": digests}
senders = st.builds(Sender, role=roles, **_who)
nodes = st.builds(Sender, role=st.sampled_from([Role.PRIMARY, Role.BACKUP]), **_who)
arbiters = st.builds(Sender, role=st.just(Role.WITNESS), **_who)
profiles = st.builds(
    Profile,
    specs=st.lists(st.tuples(names, digests, digests), max_size=5).map(tuple),
    settings=st.lists(st.tuples(names, st.text(TEXT, max_size=300)), max_size=5).map(tuple),
)
beats = st.builds(
    Beat,
    sender=nodes,
    number=numbers,
    phase=st.sampled_from(Phase),
    term=numbers,
    renews=st.booleans(),
    hold=st.booleans(),
    lease_s=leases,
    longest_lease_s=leases,
    holder=st.none() | roles,
    released=st.booleans(),
    leading_for_s=st.none() | st.floats(0, 1e12),
    health=st.sampled_from(Health),
    running=st.none() | numbers,
    readiness=st.sampled_from(Readiness),
    not_ready_because=st.lists(st.text(TEXT, max_size=200), max_size=16).map(tuple),
    may_lead=st.booleans(),
    profile_digest=st.text(TEXT, min_size=1, max_size=64),
    knows_digest=st.text(TEXT, max_size=64),
    profile=st.none() | profiles,
)
_words = {
    "term": numbers,
    "holder": st.none() | st.builds(Holder, role=roles, node_id=identifiers),
    "remaining_s": st.none() | st.floats(0, 7200) | st.just(FOREVER),
}
votes = st.builds(Vote, granted=st.just(True), refusal=st.none(), **_words) | st.builds(
    Vote, granted=st.just(False), refusal=st.none() | st.sampled_from(Refusal), **_words
)
vote_requests = st.builds(
    VoteRequest,
    sender=senders,
    kind=st.sampled_from(VoteKind),
    term=numbers,
    lease_s=leases,
    longest_lease_s=leases,
    reason=st.sampled_from(Reason),
)
release_requests = st.builds(
    ReleaseRequest,
    sender=senders,
    term=numbers,
    to=st.none() | roles,
    reason=st.sampled_from(Reason),
)
_voted = {"kind": st.sampled_from(VoteKind), "asked_term": numbers, "vote": votes}


def _beat_answer(beat: Beat, vote: Vote | None) -> BeatAnswer:
    return BeatAnswer(beat.sender, beat, vote)


requests = beats | vote_requests | release_requests | st.just(Hello())
answers = st.one_of(
    st.tuples(st.just(Kind.HEARTBEAT), st.builds(_beat_answer, beats, st.none() | votes)),
    st.tuples(
        st.just(Kind.HEARTBEAT),
        st.builds(BeatAnswer, sender=arbiters, beat=st.none(), vote=votes),
    ),
    st.tuples(
        st.just(Kind.VOTE),
        st.builds(VoteAnswer, sender=nodes, phase=st.sampled_from(Phase), **_voted),
    ),
    st.tuples(
        st.just(Kind.VOTE), st.builds(VoteAnswer, sender=arbiters, phase=st.none(), **_voted)
    ),
    st.tuples(
        st.just(Kind.RELEASE),
        st.builds(ReleaseAnswer, sender=senders, released_term=numbers, term=numbers),
    ),
    st.tuples(
        st.just(Kind.HELLO),
        st.builds(HelloAnswer, version=names, phase=st.none() | st.sampled_from(Phase)),
    ),
)
