"""A pair whose engines are not reached by their sockets: TLS, and a proxy that denies."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.etcd import Authority, authority, program
from tests.lab.agent import freeze
from tests.lab.lab import Lab, Node
from tests.lab.pair import (
    LIMIT_S,
    alarms,
    assert_never_two,
    pass_time,
    runs_all,
    status,
    term,
    wait_moved,
    wait_redundant,
)
from tests.lab.process import Process
from tests.lab.socket_proxy import NEEDED, configuration, environment
from tests.lab.truth import now_s
from tests.lab.until import until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

PORT = 2376
PROXY = "/run/proxy.sock"


# --- TLS ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("authority"), "ours")


def test_a_pair_behind_tls_moves_and_its_guard_kills(ours: Authority, tmp_path: Path) -> None:
    """The engines take nothing but certificates of their authority."""
    certificate, key = ours.sign("agent")
    for name, file in (("ca", ours.ca), ("cert", certificate), ("key", key)):
        (tmp_path / f"{name}.pem").write_bytes(file.read_bytes())
    with Lab(["db", "web"], third_host=True) as lab:
        for node in (lab.a, lab.b):
            certificate, key = ours.sign(node.name, names=f"IP:{node.address}")
            tls = {"tlscacert": str(ours.ca), "tlscert": str(certificate), "tlskey": str(key)}
            hosts = ["unix:///run/docker.sock", f"tcp://{node.address}:{PORT}"]
            node.engine.restart(hosts=hosts, tlsverify=True, **tls)
        endpoint = f"http://{lab.c.address}:8000"
        settings = {"arbiter": {"kind": "witness", "endpoint": endpoint}, "witness": {"port": 8000}}
        lab.start_agent(lab.c, "witness", settings)
        lab.start_agent(lab.a, "primary", settings | docker(lab.a, tmp_path))
        lab.start_agent(lab.b, "backup", settings | docker(lab.b, tmp_path))
        wait_redundant(lab, lab.a)

        sizes = (Path("/proc") / str(lab.a.agent.guard_pid) / "smaps_rollup").read_text()
        pss_kb = int(sizes.partition("\nPss:")[2].split()[0])
        print(f"guard with TLS: {pss_kb} kB PSS")
        assert pss_kb < 20_000

        since_s = now_s()
        freeze([lab.a.agent.agent_pid])
        wait_moved(lab, lab.b, since_s, "agent frozen, killed by its guard")
        wait_redundant(lab, lab.b)
        lab.b.crash()
        wait_moved(lab, lab.a, since_s, "host crash behind TLS")
        assert_never_two(lab)


def docker(node: Node, folder: Path) -> dict[str, Any]:
    table: dict[str, Any] = {"host": f"tcp://{node.address}:{PORT}", "tls_verify": True}
    return {"docker": table | {f"{it}_file": f"{folder}/{it}.pem" for it in ("ca", "cert", "key")}}


# --- a proxy --------------------------------------------------------------------------------------


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(["db", "web"]) as lab:
        yield lab


def start_proxy(node: Node, **changes: int) -> Process:
    """Between the agent and the engine of this host."""
    node.host.path(PROXY).unlink(missing_ok=True)
    file = node.host.path("/run/haproxy.cfg")
    file.write_text(configuration(Path(PROXY), Path("/run/docker.sock")))
    command: list[str | Path] = [program("haproxy"), "-db", "-f", "/run/haproxy.cfg"]
    process = node.host.spawn("proxy", command, environment({**NEEDED, **changes}))
    until(node.host.path(PROXY).exists, LIMIT_S, "the proxy listens")
    return process


def told(node: Node, **found: Any) -> bool:
    status_ = status(node)
    return all(status_.get(name) == value for name, value in found.items())


def test_a_start_that_a_proxy_denies_is_a_failed_one_and_no_storm(lab: Lab) -> None:
    """The host that may not start says which permission it lacks, and starts with it."""
    proxy = start_proxy(lab.b, POST=0)
    lab.start_agent(lab.a, "primary")
    lab.start_agent(lab.b, "backup", {"docker": {"host": f"unix://{PROXY}"}})
    wait_redundant(lab, lab.a)
    found = lab.b.agent.cli("check").stdout
    assert "docker-socket-proxy needs POST=1, and CONTAINERS=1 or ALLOW_START=1" in found

    lab.a.crash()
    until(lambda: told(lab.b, phase="failed"), LIMIT_S, "host-b may not start")
    sentence = alarms(lab.b)["failed"]
    assert "a proxy in front of the engine denies POST /containers/" in sentence
    assert "docker-socket-proxy needs POST=1, and CONTAINERS=1 or ALLOW_START=1" in sentence
    assert {it["state"] for it in status(lab.b)["containers"]} == {"down"}
    before = term(lab.b)
    pass_time(6.0)
    assert term(lab.b) <= before + 3, "no storm of terms"
    print(f"terms in 6 s: {term(lab.b) - before}")

    proxy.sigkill()
    start_proxy(lab.b)
    until(lambda: runs_all(lab, lab.b), LIMIT_S, "with its permission it starts")
    until(lambda: told(lab.b, phase="active"), LIMIT_S, "and is active")
    assert "failed" not in alarms(lab.b)


def test_what_a_proxy_withholds_is_said_and_moves_nothing(lab: Lab) -> None:
    proxy = start_proxy(lab.a)
    lab.start_agent(lab.a, "primary", {"docker": {"host": f"unix://{PROXY}"}})
    lab.start_agent(lab.b, "backup")
    wait_redundant(lab, lab.a)
    before, since_s = term(lab.a), now_s()
    for permission, code, words in (
        ("EVENTS", "engine_withholds", "GET /events: docker-socket-proxy needs EVENTS=1"),
        ("CONTAINERS", "engine_lost", "GET /containers/json: docker-socket-proxy needs CONTAINERS"),
    ):
        proxy.sigkill()
        proxy = start_proxy(lab.a, **{permission: 0})
        until(lambda code=code: code in alarms(lab.a), LIMIT_S, f"{permission} is missed")  # type: ignore[misc]
        until(lambda code=code, words=words: words in alarms(lab.a).get(code, ""), LIMIT_S, words)  # type: ignore[misc]
        pass_time(4.0)  # twice the restart_grace_period
        until(lambda: told(lab.a, phase="active", term=before), LIMIT_S, "it stays active")
        until(lambda: runs_all(lab, lab.a), LIMIT_S, "and its containers run")
    seen = until(lambda: status(lab.a).get("containers"), LIMIT_S, "what it knows of them")
    assert {item["state"] for item in seen} == {"unknown"}, "unknown is not down"
    proxy.sigkill()
    start_proxy(lab.a)
    wait_redundant(lab, lab.a)
    until(
        lambda: not {"engine_lost", "engine_withholds"} & {*alarms(lab.a)}, LIMIT_S, "all is well"
    )
    assert (term(lab.a), lab.truth.starts(since_s)) == (before, [])
    assert_never_two(lab)
