"""adapters/docker and the guard, and an engine that is reached over TCP: with TLS, and without."""

import gc
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from failover_agent.checks import engine as checks
from failover_agent.checks.finding import Level
from failover_agent.config import load
from failover_agent.core.effects import StartContainers
from failover_agent.core.events import ContainersStarted, EngineLost
from failover_agent.errors import EngineError
from failover_agent.guard import engine as guard
from failover_agent.guard.engine import NO_FILES, TlsFiles
from tests.integration.etcd import Authority, authority
from tests.integration.gate import gate
from tests.integration.test_docker_adapter import PATIENT, Node, adapter, aside, run
from tests.lab.lab import Lab
from tests.lab.service import Service, Spec

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(180),
    # aiohttp leaves the socket of a handshake that was cancelled to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

TLS_PORT, PLAIN_PORT = 2376, 2375

NOT_OURS = "it takes exception to the certificate that we show (docker.cert_file): its authority, "
"""All that an engine of these days says; newer ones are more exact."""


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """What a test has left is not found in the next file."""
    yield
    gc.collect()


@dataclass(frozen=True, slots=True)
class Ports:
    """Of this machine: what leads to an engine with TLS, and to one without."""

    tls: int
    plain: int


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("authority"), "ours")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("authority"), "other")


@pytest.fixture(scope="module")
def lab(ours: Authority) -> Iterator[Lab]:
    """The engine of host-a wants a certificate of its clients, as docker's own handbook has it."""
    certificate, key = ours.sign("engine", names="IP:127.0.0.1")
    with Lab([]) as made:
        for node, port in ((made.a, TLS_PORT), (made.b, PLAIN_PORT)):
            hosts = ["unix:///run/docker.sock", f"tcp://{node.address}:{port}"]
            tls = {"tlsverify": True, "tlscacert": str(ours.ca)}
            tls |= {"tlscert": str(certificate), "tlskey": str(key)}
            node.engine.restart(hosts=hosts, **(tls if node is made.a else {"tls": False}))
        yield made


@pytest.fixture(scope="module")
def ports(lab: Lab) -> Iterator[Ports]:
    with gate(lab.a.host, TLS_PORT) as tls, gate(lab.b.host, PLAIN_PORT) as plain:
        yield Ports(tls, plain)


@pytest.fixture
def node(lab: Lab) -> Iterator[Node]:
    """`db` and `web` on host-a."""
    folder = lab.truth.folder / lab.a.host.name
    services = {name: Service(lab.a.engine, Spec(name), folder / name) for name in ("db", "web")}
    for service in services.values():
        service.create()
    yield Node(lab.a.host, lab.a.engine, services)
    for row in lab.a.engine.must("GET", "/containers/json?all=1").json:
        lab.a.engine.must("DELETE", f"/containers/{row['Id']}?force=1")
    shutil.rmtree(folder)


def files_of(signed_by: Authority, *, days: int = 2, ca: Path | None = None) -> TlsFiles:
    certificate, key = signed_by.sign(f"agent-{days}", days=days)
    return TlsFiles(str(ca or signed_by.ca), str(certificate), str(key))


async def test_an_engine_behind_tls_is_watched_and_ordered_alike(
    node: Node, ports: Ports, ours: Authority
) -> None:
    host = f"https://127.0.0.1:{ports.tls}"
    async with adapter(node, host=host, files=files_of(ours)) as (engine, core):
        await engine.perform(StartContainers(term=1, names=("db", "web")))
        assert core.of(ContainersStarted) == [ContainersStarted(1)]
        await aside(node.services["db"].kill)
        await core.hears(lambda: core.deaths)
        report = await engine.probe()

    assert report.denials == ()
    assert [it.detail for it in report.containers] == ["exited (137)", "running"]


async def problem(node: Node, host: str, files: TlsFiles) -> str:
    """What a probe says, and what the core is told, which is the same."""
    async with adapter(node, host=host, files=files, timing=PATIENT) as (engine, core):
        with pytest.raises(EngineError) as raised:
            await engine.probe()
    lost = core.of(EngineLost)[0]
    assert lost.error == raised.value.what
    return lost.error


async def test_each_thing_that_is_wrong_with_tls_has_its_sentence(
    node: Node, ports: Ports, ours: Authority, other: Authority
) -> None:
    tls, plain = f"https://127.0.0.1:{ports.tls}", f"https://127.0.0.1:{ports.plain}"
    good = files_of(ours)
    for host, files, sentence in (
        (
            tls,
            files_of(other),
            "the engine's certificate is not one to trust (unable to get local ",
        ),
        (tls.replace("127.0.0.1", "localhost"), good, "the engine's certificate is for another ho"),
        (tls, TlsFiles(str(ours.ca)), "it wants a certificate of ours: docker.cert_file and key_"),
        (tls, files_of(other, ca=ours.ca), NOT_OURS),
        (tls, files_of(ours, days=-1), NOT_OURS),
        (tls.replace("https", "tcp"), NO_FILES, "it speaks only TLS there: set docker.tls_verify"),
        (
            plain,
            good,
            "it speaks no TLS there: is it the port of an engine without (tcp:// and mos",
        ),
        ("https://nobody.invalid:2376", good, "the name in docker.host is not known ("),
    ):
        told = await problem(node, host, files)
        print(f"{host} {told}")
        assert told.startswith(sentence), (host, files)


async def test_a_certificate_of_the_engine_that_has_expired(
    node: Node, lab: Lab, ports: Ports, ours: Authority
) -> None:
    current, _ = ours.sign("engine", names="IP:127.0.0.1")
    certificate, key = ours.sign("engine-old", names="IP:127.0.0.1", days=-1)
    host = f"https://127.0.0.1:{ports.tls}"
    await aside(lambda: lab.a.engine.restart(tlscert=str(certificate), tlskey=str(key)))
    try:
        told = await problem(node, host, files_of(ours))
    finally:
        key = current.with_suffix(".key")
        await aside(lambda: lab.a.engine.restart(tlscert=str(current), tlskey=str(key)))

    assert told == "the engine's certificate has expired: make it a new one, and restart it"


async def test_a_certificate_that_is_renewed_needs_no_new_agent(
    node: Node, ports: Ports, ours: Authority, other: Authority, tmp_path: Path
) -> None:
    names = ("ca_file", "cert_file", "key_file")
    files = TlsFiles(*(str(tmp_path / name) for name in names))

    def write(given: TlsFiles) -> None:
        for name in names:
            shutil.copyfile(getattr(given, name), getattr(files, name))

    write(files_of(other))
    host = f"https://127.0.0.1:{ports.tls}"
    async with adapter(node, host=host, files=files) as (_, core):
        assert core.of(EngineLost)
        write(files_of(ours))
        await core.hears(lambda: core.detail("db") == "created")
        Path(files.key_file).unlink()
        since_s = time.monotonic()
        await core.hears(lambda: time.monotonic() - since_s > 2)
        assert core.detail("db") == "created", "what was read before serves on"
        seen = len(core.of(EngineLost))
        run(node, "db")
        await core.hears_of("db", "running")
        assert len(core.of(EngineLost)) == seen


# --- the guard ------------------------------------------------------------------------------------


def test_the_guard_kills_through_tls_and_without(
    node: Node, lab: Lab, ports: Ports, ours: Authority, other: Authority
) -> None:
    host, good = f"https://127.0.0.1:{ports.tls}", files_of(ours)
    ids = {name: run(node, name).inspect()["Id"] for name in ("db", "web")}

    assert guard.kill(host, ("db",), (ids["web"],), 20.0, good) == dict.fromkeys(ids.values(), True)
    assert {service.state for service in node.services.values()} == {"exited"}
    run(node, "db")
    for at, files in (
        (host, files_of(other)),
        (host, TlsFiles(str(ours.ca))),
        (host.replace("127.0.0.1", "localhost"), good),
        (host, TlsFiles("/nonexistent/ca.pem")),
        (f"https://127.0.0.1:{ports.plain}", good),
    ):
        assert not any(guard.kill(at, ("db",), (ids["db"],), 5.0, files).values()), (at, files)
    assert node.services["db"].state == "running"
    lab.a.engine.freeze()
    try:
        began_s = time.monotonic()
        assert guard.kill(host, ("db",), (ids["db"],), 0.5, good) == {}
        assert time.monotonic() - began_s < 5.0
    finally:
        lab.a.engine.thaw()


# --- check ----------------------------------------------------------------------------------------


async def test_check_takes_the_engine_from_the_environment_as_docker_does(
    node: Node,
    ports: Ports,
    ours: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run(node, "db")
    good = files_of(ours)
    for name in ("ca", "cert", "key"):
        shutil.copyfile(getattr(good, f"{name}_file"), tmp_path / f"{name}.pem")
    config = tmp_path / "config.toml"
    config.write_text(
        'containers = ["db", "web"]\n[primary]\nendpoint = "http://10.0.0.2:8000"\n'
        '[backup]\nendpoint = "http://10.0.0.1:8000"\n[security]\nsecret = "sixteen letters!"\n'
    )
    for name, value in (
        ("DOCKER_HOST", f"tcp://127.0.0.1:{ports.tls}"),
        ("DOCKER_TLS_VERIFY", "1"),
        ("DOCKER_CERT_PATH", str(tmp_path)),
    ):
        monkeypatch.setenv(name, value)
    found = await checks.look(load(config, "primary"))

    assert found.running == ("db",)
    assert found.findings[0].level is Level.OK
    assert found.findings[0].sentence.startswith(f"https://127.0.0.1:{ports.tls} answers (version ")
    assert {it.level for it in found.findings} == {Level.OK, Level.HINT}

    monkeypatch.delenv("DOCKER_TLS_VERIFY")
    [finding] = (await checks.look(load(config, "primary"))).findings
    assert "it speaks only TLS there: set docker.tls_verify = true" in finding.sentence
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{ports.plain}")
    found = await checks.look(load(config, "primary"))
    assert [it.level for it in found.findings if it.subject == "docker.host"] == [Level.WARNING]
