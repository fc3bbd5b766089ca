"""`endpoint` as a list: several ways to the other node, or to the witness."""

import os
from pathlib import Path

import pytest

from failover_agent import config
from failover_agent.checks import settings as of_configuration
from failover_agent.checks.finding import Finding, Level
from failover_agent.config import MistakesError, Settings
from failover_agent.core.policy import Role

PAIR = """\
containers = ["db", "web"]
[primary]
endpoint = {to_backup}
{primary}
[backup]
endpoint = {to_primary}
{arbiter}
[security]
secret = "sixteen letters!"
"""
TO_BACKUP = ("http://10.0.0.2:8000", "http://192.168.100.2:8000")
TO_PRIMARY = ("http://10.0.0.1:8000", "http://192.168.100.1:8000")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.upper().startswith("FAILOVER_AGENT_") or name == "DOCKER_HOST":
            monkeypatch.delenv(name)


def toml(endpoints: tuple[str, ...]) -> str:
    return "[{}]".format(", ".join(f'"{each}"' for each in endpoints))


def load(
    to_backup: tuple[str, ...] = TO_BACKUP,
    to_primary: tuple[str, ...] = TO_PRIMARY,
    *,
    primary: str = "",
    arbiter: str = "",
) -> Settings:
    path = Path("config.toml")
    text = PAIR.format(
        to_backup=toml(to_backup), to_primary=toml(to_primary), primary=primary, arbiter=arbiter
    )
    path.write_text(text)
    return config.load(path, "primary")


def mistake(
    to_backup: tuple[str, ...] = TO_BACKUP,
    to_primary: tuple[str, ...] = TO_PRIMARY,
    *,
    primary: str = "",
    arbiter: str = "",
) -> str:
    with pytest.raises(MistakesError) as caught:
        load(to_backup, to_primary, primary=primary, arbiter=arbiter)
    (told,) = caught.value.mistakes
    return str(told)


def witness(*endpoints: str) -> str:
    return f'[arbiter]\nkind = "witness"\nendpoint = {toml(endpoints)}'


def test_each_way_is_kept_in_order_and_the_first_is_the_host_to_fence() -> None:
    node = load().node

    assert node.endpoints == TO_BACKUP
    assert node.peer_host == "10.0.0.2"
    assert load().configuration.node(Role.BACKUP).endpoints == TO_PRIMARY


def test_a_list_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAILOVER_AGENT_PRIMARY__ENDPOINT", ",".join(TO_BACKUP))

    assert load(("http://10.9.9.9:1",)).node.endpoints == TO_BACKUP


def test_the_ways_to_a_witness() -> None:
    endpoints = ("http://10.0.0.3:8000", "http://192.168.100.3:8000")

    arbiter = load(arbiter=witness(*endpoints)).arbiter

    assert arbiter is not None
    assert arbiter.endpoints == endpoints


def test_the_same_way_twice_is_no_second_one() -> None:
    twice = ("http://10.0.0.2:8000", "http://10.0.0.2:8000/")

    assert mistake(twice) == (
        'config.toml: [primary] endpoint (["http://10.0.0.2:8000", "http://10.0.0.2:8000"]) names '
        "http://10.0.0.2:8000 more than once, and the same way twice is no second one. Name each "
        "way once: the address on the network, and that on the cable."
    )


def test_there_can_be_ten_ways() -> None:
    many = tuple(f"http://10.0.{number}.2:8000" for number in range(11))

    assert load(many[:10]).node.endpoints == many[:10]
    assert mistake(many) == (
        "config.toml: [primary] endpoint names 11 addresses, and there can be 10 paths. Name 10 or "
        "fewer; two on cables of their own are enough."
    )


def test_none_of_them_may_lead_to_ourselves() -> None:
    assert mistake(("http://10.0.0.2:8000", "http://localhost:8000")) == (
        "config.toml: [primary] endpoint (http://localhost:8000) is where the primary itself "
        "listens (bind 0.0.0.0, port 8000). Write the address of the other agent, the backup."
    )


def test_none_of_them_may_be_in_both_lists() -> None:
    told = mistake(to_primary=("http://10.0.0.1:8000", TO_BACKUP[1]))

    assert told.startswith(
        "config.toml: [backup] endpoint (http://192.168.100.2:8000) is the same as that of "
        "[primary], and so one of the two nodes would talk to itself. "
    )


def test_each_of_them_needs_its_port() -> None:
    assert mistake(("http://10.0.0.2:8000", "http://192.168.100.2")).startswith(
        'config.toml: [primary] endpoint ("http://192.168.100.2") names no port. '
    )


@pytest.mark.parametrize(
    ("endpoints", "told"),
    [
        (
            ("http://10.0.0.3:8000", "http://10.0.0.3:8000"),
            "names http://10.0.0.3:8000 more than once, and the same way twice is no second one",
        ),
        (
            ("http://10.0.0.3:8000", "http://192.168.100.2:9000"),
            "is on the host of the backup (192.168.100.2): when that host dies two of the three ",
        ),
        (
            ("http://10.0.0.3:8000", "http://localhost:9000"),
            "is every host's own address, so each node would ask another arbiter, and both could ",
        ),
    ],
)
def test_a_list_of_ways_to_a_witness_leads_to_one_host_that_is_no_node(
    endpoints: tuple[str, ...], told: str
) -> None:
    assert mistake(arbiter=witness(*endpoints)) == (mistake(arbiter=witness(*endpoints)))
    assert f"({str(list(endpoints)).replace(chr(39), chr(34))}) {told}" in mistake(
        arbiter=witness(*endpoints)
    )


# --- what `check` says of them --------------------------------------------------------------------


def ports(settings: Settings) -> list[Finding]:
    return [each for each in of_configuration.find(settings) if each.subject == "ports"]


def test_who_is_called_at_two_addresses_and_listens_at_one_is_told() -> None:
    assert ports(load(primary='bind = "0.0.0.0"')) == []

    (finding,) = ports(load(primary='bind = "10.0.0.1"'))

    assert finding == Finding(
        Level.WARNING,
        "ports",
        "the primary listens at 10.0.0.1 alone, and is called at http://192.168.100.1:8000 too",
        '[primary] bind = "0.0.0.0", or "::" where addresses are IPv6',
    )


def test_each_way_that_needs_a_forwarded_port_is_named() -> None:
    (finding,) = ports(load(("http://10.0.0.2:8000", "http://192.168.100.2:9000")))

    assert finding.sentence == (
        "the backup listens on 8000 ([backup] port), and the primary calls "
        "http://192.168.100.2:9000: that needs a forwarded port"
    )


def test_a_witness_that_listens_at_one_of_its_addresses_is_told_too() -> None:
    endpoints = ("http://10.0.0.3:8000", "http://192.168.100.3:8000")
    listens = f'{witness(*endpoints)}\n[witness]\nbind = "10.0.0.3"'

    (finding,) = ports(load(arbiter=listens))

    assert finding.sentence == (
        "the witness listens at 10.0.0.3 alone, and is called at http://192.168.100.3:8000 too"
    )
