"""Where the engine is, and what is shown to it: [docker], and docker's own environment."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from failover_agent.config import Settings
from failover_agent.guard.engine import NO_FILES, TlsFiles
from tests.unit import test_config
from tests.unit.test_config import mistake

AT = "https://10.0.0.1:2376"
PLAIN = "tcp://10.0.0.1:2376"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in os.environ:
        if name.startswith(("FAILOVER_AGENT_", "DOCKER_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return iter([None])


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    """A folder as DOCKER_CERT_PATH wants it."""
    folder = tmp_path / "certs"
    folder.mkdir()
    make_certificate(folder / "cert.pem", folder / "key.pem")
    (folder / "ca.pem").write_bytes((folder / "cert.pem").read_bytes())
    return folder


def make_certificate(certificate: Path, key: Path) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-subj", "/CN=me", "-keyout", key, "-out", certificate],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip


def load(docker: str = "") -> Settings:
    return test_config.load(top=f"[docker]\n{docker}")


def at(settings: Settings) -> tuple[str, TlsFiles]:
    return settings.docker_host, settings.docker_files


def in_folder(folder: Path) -> TlsFiles:
    return TlsFiles(*(str(folder / name) for name in ("ca.pem", "cert.pem", "key.pem")))


def test_docker_host_and_its_tls_come_from_the_environment(
    certs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", PLAIN)
    assert at(load()) == (PLAIN, NO_FILES)
    monkeypatch.setenv("DOCKER_CERT_PATH", str(certs))
    assert at(load()) == (PLAIN, NO_FILES), "as docker: the folder alone asks for nothing"
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    assert at(load()) == (AT, in_folder(certs))
    assert at(load("tls_verify = false")) == (PLAIN, NO_FILES)
    assert at(load('host = "unix:///run/docker.sock"')) == ("unix:///run/docker.sock", NO_FILES)


def test_without_a_folder_the_files_are_those_of_docker_in_the_home(
    certs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", PLAIN)
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    assert at(load()) == (AT, NO_FILES)
    home = Path(os.environ["HOME"])
    home.mkdir()
    certs.rename(home / ".docker")
    assert at(load()) == (AT, in_folder(home / ".docker"))
    monkeypatch.delenv("HOME")
    assert at(load()) == (AT, NO_FILES)


def test_the_files_of_the_configuration_count_from_its_folder_and_ask_for_tls(
    certs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CERT_PATH", "/nonexistent")
    wanted = TlsFiles("certs/ca.pem", "certs/cert.pem", "certs/key.pem")
    files = 'ca_file = "certs/ca.pem"\ncert_file = "certs/cert.pem"\nkey_file = "certs/key.pem"\n'
    for host in (PLAIN, AT, "http://10.0.0.1:2376"):
        assert at(load(f'{files}host = "{host}"')) == (AT, wanted)
    just_the_authority = load(f'host = "{PLAIN}"\nca_file = "{certs}/ca.pem"')
    assert at(just_the_authority) == (AT, TlsFiles(str(certs / "ca.pem")))


def test_tls_without_files_leaves_it_to_the_authorities_of_the_system() -> None:
    assert at(load(f'host = "{AT}"')) == (AT, NO_FILES)
    assert at(load(f'host = "{PLAIN}"\ntls_verify = true')) == (AT, NO_FILES)


@pytest.mark.parametrize(
    ("docker", "told"),
    [
        ('ca_file = "ca.pem"', "ca_file changes nothing: the engine is at unix:///var/run/docker."),
        ("tls_verify = true", "tls_verify changes nothing: the engine is at unix:///var/run/docke"),
        (f'host = "{AT}"\ntls_verify = false', "tls_verify (false) cannot be: the engine is at h"),
        (
            f'host = "{PLAIN}"\ntls_verify = false\nca_file = "ca.pem"',
            "tls_verify (false) cannot be: ca_file is named, and TLS that checks no certif",
        ),
        (f'host = "{AT}"\nkey_file = "key.pem"', "key_file is the key of no certificate. Name th"),
        ("tls_verify = 1", "tls_verify (1) must be true or false, without quotes. "),
    ],
)
def test_what_cannot_be_meant(docker: str, told: str) -> None:
    wrong = mistake(top=f"[docker]\n{docker}")

    assert wrong.startswith(f"config.toml: [docker] {told}")


def test_files_that_cannot_be_used_are_named(certs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_certificate(certs / "other.pem", certs / "other.key")

    def told(docker: str) -> str:
        return mistake(top=f'[docker]\nhost = "{AT}"\n{docker}')

    assert told('ca_file = "gone.pem"').startswith(
        "[docker] ca_file = gone.pem: there is no such file. It is a file in PEM, readable"
    )
    pair = 'cert_file = "certs/cert.pem"\nkey_file = "certs/{}"'
    assert told(pair.format("gone.key")).startswith(
        "[docker] key_file = certs/gone.key: there is no such file. "
    )
    assert told(pair.format("other.key")).startswith(
        "[docker] cert_file = certs/cert.pem with key_file certs/other.key: it cannot be used (key "
    )
    assert (
        "key_file = certs: it cannot be read (Is a directory; mode 0755, owner uid 0, this i"
        in (told('cert_file = "certs/cert.pem"\nkey_file = "certs"'))
    )
    (certs / "key.pem").unlink()
    monkeypatch.setenv("DOCKER_CERT_PATH", str(certs))
    assert told("").startswith(f"DOCKER_CERT_PATH: key_file = {certs}/key.pem: there is no such f")


def test_a_witness_needs_none_of_it() -> None:
    text = '[witness]\nport = 8000\n[security]\nsecret = "sixteen letters!"\n[docker]\n'
    settings = test_config.load(f'{text}host = "{AT}"\nca_file = "gone.pem"', role="witness")

    assert settings.witness.port == 8000
