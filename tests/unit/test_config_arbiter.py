"""The third voter in config.toml: [arbiter], [witness], the lease that it brings, and the fence."""

import os
import subprocess
from pathlib import Path

import pytest

from failover_agent import config
from failover_agent.config import Arbiter, ArbiterKind, Fence, MistakesError, Settings
from failover_agent.core.policy import Role
from failover_agent.errors import ConfigError, ExitCode, SecretError

SECRET = 'secret = "sixteen letters!"'
PAIR = """\
cluster = "shop"
containers = ["db", "web"]
{top}
[primary]
endpoint = "http://10.0.0.2:8000"
[backup]
endpoint = "http://10.0.0.1:8000"
{arbiter}
[security]
{security}
"""
WITNESS = '[arbiter]\nkind = "witness"\nendpoint = "http://10.0.0.3:8000"'
ETCD = '[arbiter]\nkind = "etcd"\nendpoint = ["https://10.0.0.3:2379", "https://10.0.0.4:2379"]'


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a message begins with "config.toml", and no variable is heeded."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.upper().startswith("FAILOVER_AGENT_") or name == "DOCKER_HOST":
            monkeypatch.delenv(name)


def load(
    *, role: str = "primary", text: str | None = None, arbiter: str = WITNESS, **parts: str
) -> Settings:
    path = Path("config.toml")
    parts = {"top": "", "security": SECRET} | parts
    path.write_text(PAIR.format(arbiter=arbiter, **parts) if text is None else text)
    return config.load(path, role)


def mistakes(role: str = "primary", text: str | None = None, **parts: str) -> list[str]:
    with pytest.raises(MistakesError) as caught:
        load(role=role, text=text, **parts)
    assert caught.value.exit_code is ExitCode.USAGE
    return [str(mistake) for mistake in caught.value.mistakes]


def mistake(**parts: str) -> str:
    (told,) = mistakes(**parts)
    return told


def private(name: str, content: str) -> Path:
    path = Path(name)
    path.write_text(content)
    path.chmod(0o600)
    return path


# --- what is read --------------------------------------------------------------------------------


def test_a_witness_is_a_voter_and_brings_a_lease() -> None:
    settings = load()
    policy = settings.policy()

    assert settings.arbiter == Arbiter(ArbiterKind.WITNESS, ("http://10.0.0.3:8000",))
    assert policy.arbiter is Role.WITNESS
    assert policy.voters == (Role.PRIMARY, Role.BACKUP, Role.WITNESS)
    assert (policy.stop_budget_s, policy.kill_budget_s) == (2.5, 1.0)
    assert load(arbiter="").arbiter is None


def test_an_etcd_has_members_and_whatever_it_asks_for() -> None:
    private("password", "hunter two\n")
    certificate = make_certificate("client")

    settings = load(
        arbiter=f'{ETCD}\nusername = "failover"\npassword_file = "password"\n'
        f'ca_file = "{certificate}.pem"\ncert_file = "client.pem"\nkey_file = "client.key"'
    )

    assert settings.arbiter == Arbiter(
        kind=ArbiterKind.ETCD,
        endpoints=("https://10.0.0.3:2379", "https://10.0.0.4:2379"),
        username="failover",
        password="hunter two",
        ca_file=Path("client.pem"),
        cert_file=Path("client.pem"),
        key_file=Path("client.key"),
    )
    assert settings.policy().arbiter is Role.WITNESS
    assert "hunter" not in repr(settings) + repr(settings.arbiter)


def test_an_arbiter_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {
        "ARBITER__KIND": "etcd",
        "ARBITER__ENDPOINT": "http://10.0.0.3:2379,http://10.0.0.4:2379",
        "ARBITER__USERNAME": "failover",
        "ARBITER__PASSWORD": "hunter2",
        "WITNESS__PORT": "9000",
        "FENCE_COMMAND": "/sbin/power-off 'host b', c",
    }.items():
        monkeypatch.setenv(f"FAILOVER_AGENT_{name}", text)

    settings = load(arbiter="")

    assert settings.arbiter is not None
    assert settings.arbiter.endpoints == ("http://10.0.0.3:2379", "http://10.0.0.4:2379")
    assert settings.arbiter.password == "hunter2"
    assert settings.witness.port == 9000
    assert settings.fence == Fence(("/sbin/power-off", "host b,", "c"), 30.0)


@pytest.mark.parametrize(
    ("kind", "listed", "told"),
    [
        ("etcd", '["https://10.0.0.3:2379"]', ""),
        ("etcd", '["a"]', 'ENDPOINT ("a") has no scheme. Write "http://a".'),
        ("etcd", '["http://a"]', 'ENDPOINT ("http://a") names no port. Write "http://a:2379".'),
        ("witness", '["https://a:1"]', 'ENDPOINT ("https://a:1") asks for TLS, which is not in '),
    ],
)
def test_a_list_of_endpoints_in_the_environment_may_be_written_as_in_the_file(
    kind: str, listed: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAILOVER_AGENT_ARBITER__KIND", kind)
    monkeypatch.setenv("FAILOVER_AGENT_ARBITER__ENDPOINT", listed)

    if told:
        assert mistake(arbiter="").startswith(f"environment: FAILOVER_AGENT_ARBITER__{told}")
    else:
        assert load(arbiter="").arbiter == Arbiter(ArbiterKind.ETCD, ("https://10.0.0.3:2379",))


def test_the_arbiter_decides_quorum_and_its_members_have_no_order() -> None:
    def fingerprint(arbiter: str, top: str = "") -> str:
        return load(arbiter=arbiter, top=top).policy().fingerprint

    backwards = ETCD.replace("3:2379", "x").replace("4:2379", "3:2379").replace("x", "4:2379")

    assert len({fingerprint(each) for each in ("", WITNESS, ETCD)}) == 3
    assert fingerprint(WITNESS) == load(role="backup").policy().fingerprint
    assert fingerprint(WITNESS) != fingerprint(WITNESS.replace("0.3:", "0.33:"))
    assert backwards != ETCD
    assert fingerprint(backwards) == fingerprint(ETCD)


def test_the_budgets_and_the_fence_should_be_equal_on_both_nodes() -> None:
    usual, short = load().policy(), load(top="stop_budget = 4").policy()
    fenced = load(top='fence_command = "/sbin/off"').policy()

    assert dict(usual.settings).items() >= {
        ("stop_budget", "2.5"),
        ("kill_budget", "1"),
        ("fence_command", "none"),
    }
    assert dict(short.settings)["stop_budget"] == "4"
    assert dict(fenced.settings)["fence_command"] == "set"
    assert (usual.has_fence, fenced.has_fence) == (False, True)
    assert "stop_budget" not in dict(load(arbiter="").policy().settings)


def test_the_lease_file_lies_beside_the_control_socket() -> None:
    node = load().node

    assert node.lease_file == Path("/run/failover-agent/shop.lease")
    assert load(
        top="[backup]\nport = 8000",
        arbiter="",
        text=PAIR.format(top="", arbiter="", security=SECRET).replace(
            "[backup]", 'control_socket = "/run/x.lease"\n[backup]'
        ),
    ).node.lease_file == Path("/run/x.lease.lease")


# --- the fence -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('"/sbin/off --host b"', ("/sbin/off", "--host", "b")),
        ("""'/sbin/off "host b"'""", ("/sbin/off", "host b")),
        ('["/sbin/off", "host b", ""]', ("/sbin/off", "host b", "")),
    ],
)
def test_a_fence_is_a_list_of_words_or_a_line_of_them(line: str, words: tuple[str, ...]) -> None:
    settings = load(top=f"fence_command = {line}\nfence_timeout = 7", arbiter="")

    assert settings.fence == Fence(words, 7.0)
    assert settings.policy().has_fence


@pytest.mark.parametrize("line", ['""', "[]"])
def test_no_words_are_no_fence(line: str) -> None:
    assert load(top=f"fence_command = {line}").fence is None


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            '''"off 'host"''',
            """("off 'host") cannot be split into words (no closing quotation). Write it as a """,
        ),
        ('[" "]', '([" "]) names no program. The first word is the program: ['),
        ('["/sbin/off", "a\\u0000"]', "([" + '"/sbin/off", "a\\u0000"]) has a zero byte in it. '),
        ("5", '(5) must be a list. Write fence_command = ["/usr/local/sbin/power-off", "host-b"].'),
        ("[5]", "(5) must be text. "),
    ],
)
def test_a_fence_that_cannot_be_meant(line: str, told: str) -> None:
    assert mistake(top=f"fence_command = {line}").startswith(f"config.toml: fence_command {told}")


# --- the witness ---------------------------------------------------------------------------------


def test_a_witness_needs_no_more_than_its_table_and_the_secret() -> None:
    settings = load(role="witness", text=f'cluster = "shop"\n[witness]\n[security]\n{SECRET}')
    witness, node = settings.witness, settings.node

    assert (witness.bind, witness.port) == ("0.0.0.0", 8000)
    assert witness.state_dir == Path("/var/lib/failover-agent/witness")
    assert witness.control_socket == Path("/run/failover-agent/witness.sock")
    assert witness.clusters == (("shop", b"sixteen letters!"),)
    assert (node.role, node.control_socket) == (Role.WITNESS, witness.control_socket)
    assert settings.configuration.roles == (Role.WITNESS,)
    assert config.read(Path("config.toml")).roles == (Role.WITNESS,)


def test_one_file_serves_all_three_hosts() -> None:
    witness = load(role="witness").witness

    assert witness.clusters == (("shop", b"sixteen letters!"),)
    assert load(role="primary").witness.clusters == ()
    assert load().configuration.roles == (Role.PRIMARY, Role.BACKUP, Role.WITNESS)
    assert load(arbiter=ETCD.replace("https", "http")).configuration.roles == (
        Role.PRIMARY,
        Role.BACKUP,
    )


def test_a_witness_of_many_pairs_has_a_secret_for_each_or_a_common_one() -> None:
    private("secret-of-lab", "another sixteen letters\n")
    clusters = '[witness.clusters.lab]\nsecret_file = "secret-of-lab"\n[witness.clusters.shop]'

    settings = load(role="witness", text=f"{clusters}\n[security]\n{SECRET}")
    assert settings.witness.clusters == (
        ("lab", b"another sixteen letters"),
        ("shop", b"sixteen letters!"),
    )
    assert "sixteen" not in repr(settings) + repr(settings.witness)

    one = clusters.replace("[witness.clusters.shop]", "")
    assert load(role="witness", text=one).witness.clusters[0][0] == "lab"
    assert "there is no secret" in mistake(role="witness", text=clusters)
    assert "there is no secret" in mistake(role="witness", text="[witness]")


@pytest.mark.parametrize("arbiter", ["", ETCD.replace("https", "http")])
def test_a_witness_that_the_file_does_not_know_of(arbiter: str) -> None:
    assert mistake(role="witness", arbiter=arbiter) == (
        '--role witness: config.toml knows of no witness. Add [arbiter] with kind = "witness" and '
        "its endpoint, the same on all hosts; or, for a witness with a file of its own, [witness]."
    )


def test_a_witness_that_does_not_serve_the_pair_of_its_own_file() -> None:
    arbiter = f"{WITNESS}\n[witness.clusters.lab]\n[witness.clusters.den]"

    assert mistake(arbiter=arbiter) == (
        "config.toml: [witness.clusters] names den, lab, and not the pair of this file, shop. "
        "Add [witness.clusters.shop], or the witness would turn its nodes away."
    )


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("[witness]\nport = 0", "[witness] port (0) must be 1 or more. "),
        ('[witness.clusters."a/b"]', '[witness.clusters.a/b] ("a/b") is part of file names. '),
        ("[witness]\nclusters = 5", "[witness] clusters must be a table. Write [witness.clust"),
        ("[witness.clusters]\nlab = 5", "[witness.clusters] lab must be a table. Write [witn"),
        ("[witness.clusters.lab]\nsecret_file = 5", "[witness.clusters.lab] secret_file (5) must "),
    ],
)
def test_a_value_of_a_witness_of_the_wrong_kind(table: str, told: str) -> None:
    text = f"{table}\n[security]\n{SECRET}"

    assert mistake(role="witness", text=text).startswith(f"config.toml: {told}")


def test_the_secret_of_a_pair_is_looked_after_like_the_common_one() -> None:
    private("secret-of-lab", "short\n")
    text = '[witness.clusters.lab]\nsecret_file = "secret-of-lab"'

    assert "fewer than 16 can be guessed" in mistake(role="witness", text=text)


# --- the address of the arbiter -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arbiter", "told"),
    [
        (
            "[arbiter]",
            "[arbiter] kind is missing: it says what the third voter is. Write kind = ",
        ),
        (
            '[arbiter]\nkind = "consul"',
            '[arbiter] kind ("consul") must be "witness" or "etcd". Write kind = "witness", for ',
        ),
        (
            '[arbiter]\nkind = "witness"',
            (
                "[arbiter] endpoint is missing: it is the address of the third voter. Where the "
                'witness listens, as both nodes reach it: endpoint = "http://ADDRESS:8000"'
            ),
        ),
        (
            '[arbiter]\nkind = "etcd"\nendpoint = []',
            (
                "[arbiter] endpoint is missing: it is the address of the third voter. Where etcd "
                'listens for clients, as both nodes reach it: endpoint = "http://ADDRESS:2379"'
            ),
        ),
        (
            '[arbiter]\nkind = "etcd"\nendpoint = "http://10.0.0.3"',
            '[arbiter] endpoint ("http://10.0.0.3") names no port. Write "http://10.0.0.3:2379".',
        ),
        (
            '[arbiter]\nkind = "witness"\nendpoint = "https://10.0.0.3:8000"',
            '[arbiter] endpoint ("https://10.0.0.3:8000") asks for TLS, which is not in this ',
        ),
        (
            '[arbiter]\nkind = "witness"\nendpoint = "http://10.0.0.2:9000"',
            (
                '[arbiter] endpoint (["http://10.0.0.2:9000"]) is on the host of the backup '
                "(10.0.0.2): when that host dies two of the three votes are gone, and nothing "
                "takes over. Run the witness on a third host; a small one will do."
            ),
        ),
        (
            '[arbiter]\nkind = "etcd"\nendpoint = ["http://10.0.0.3:1", "http://10.0.0.1:1"]',
            (
                '[arbiter] endpoint (["http://10.0.0.3:1", "http://10.0.0.1:1"]) is on the host '
                "of the primary (10.0.0.1): when that host dies two of the three votes are gone, "
                "and nothing takes over. Name members of etcd on other hosts too, so that each "
            ),
        ),
        (
            '[arbiter]\nkind = "witness"\nendpoint = "http://localhost:9000"',
            (
                '[arbiter] endpoint (["http://localhost:9000"]) is every host\'s own address, so '
                "each node would ask another arbiter, and both could win. Write the address at "
            ),
        ),
    ],
)
def test_an_arbiter_that_is_none(arbiter: str, told: str) -> None:
    assert mistake(arbiter=arbiter).startswith(f"config.toml: {told}")


def test_an_etcd_with_a_member_on_each_host_survives_any_of_them() -> None:
    members = '["http://10.0.0.1:2379", "http://10.0.0.2:2379", "http://10.0.0.3:2379"]'

    settings = load(arbiter=f'[arbiter]\nkind = "etcd"\nendpoint = {members}')

    assert settings.arbiter is not None
    assert len(settings.arbiter.endpoints) == 3


def test_all_three_can_be_tried_out_on_one_machine() -> None:
    text = PAIR.format(top="", arbiter=WITNESS, security=SECRET)
    text = text.replace("10.0.0.1:8000", "127.0.0.1:8001").replace(
        "10.0.0.2:8000", "127.0.0.1:8002"
    )
    text = text.replace("[backup]", "port = 8001\n[backup]\nport = 8002")
    here = text.replace("10.0.0.3:8000", "127.0.0.1:8003")

    assert load(text=here).policy().requires_lease
    assert mistake(text=here.replace(":8003", ":8002")) == (
        "config.toml: [arbiter] endpoint (http://127.0.0.1:8002) is where a node listens. "
        "Choose another port."
    )


# --- who may ask an etcd --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ('username = "a"', 'username ("a") has no password. Name a file with it: password_file = '),
        ('password = "a"', "username is missing: there is a password, and nobody whose it is. "),
        ('username = "a"\npassword = "b"\npassword_file = "c"', "password and password_file excl"),
        ('username = "a"\npassword = 5', "password (not shown here) must be text. "),
        ('key_file = "a.key"', "key_file is the key of no certificate. Name the certificate too: "),
    ],
)
def test_access_to_etcd_that_cannot_be_meant(keys: str, told: str) -> None:
    private("c", "hunter2")

    assert mistake(arbiter=f"{ETCD}\n{keys}").startswith(f"config.toml: [arbiter] {told}")


def test_certificates_need_an_endpoint_that_uses_them() -> None:
    make_certificate("client")

    assert mistake(arbiter=ETCD.replace("https:", "http:") + '\nca_file = "client.pem"') == (
        "config.toml: [arbiter] ca_file changes nothing: no endpoint begins with https://. "
        "Write the endpoint with https://, or take the file out."
    )


@pytest.mark.parametrize("key", ["username", "password", "ca_file", "key_file"])
def test_a_witness_knows_its_nodes_by_the_secret(key: str) -> None:
    assert mistake(arbiter=f'{WITNESS}\n{key} = "a"') == (
        f"config.toml: [arbiter] {key} is for an etcd: a witness knows its nodes by the secret in "
        "[security]. Take it out."
    )


def test_the_password_file_is_looked_after_like_the_secret() -> None:
    keys = f'{ETCD}\nusername = "a"\npassword_file = "password"'

    assert mistake(arbiter=keys).startswith("password: there is no file with the secret. ")
    private("password", "\n")
    assert mistake(arbiter=keys).startswith("password: there is no text in it that could be a ")
    private("password", "x\n").chmod(0o644)
    assert "open to other users" in mistake(arbiter=keys)
    with pytest.raises(MistakesError) as caught:
        load(arbiter=keys)
    assert isinstance(caught.value.mistakes[0], SecretError)


def test_certificates_that_cannot_be_used() -> None:
    make_certificate("one"), make_certificate("two")
    Path("text.pem").write_text("no certificate")

    def told(keys: str) -> str:
        (found,) = mistakes(arbiter=f"{ETCD}\n{keys}")
        return found

    assert told('ca_file = "gone.pem"').startswith(
        "[arbiter] ca_file = gone.pem: there is no such f"
    )
    assert told('ca_file = "text.pem"').startswith("[arbiter] ca_file = text.pem: it cannot be use")
    assert told('cert_file = "one.pem"\nkey_file = "gone.key"').startswith(
        "[arbiter] key_file = gone.key: there is no such file. "
    )
    assert told('cert_file = "one.pem"\nkey_file = "two.key"').startswith(
        "[arbiter] cert_file = one.pem with key_file two.key: it cannot be used (key values mism"
    )


def make_certificate(name: str) -> str:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem"],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    return name


# --- how long ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("top", "told"),
    [
        (
            "heartbeat_timeout = 4\nheartbeat_interval = 1",
            (
                "heartbeat_timeout (4) x 0.99 = 3.96 must be at least stop_budget (1, the default) "
                "+ 3 x heartbeat_interval (1) = 4, or two lost messages would stop the service. "
                "Raise it to 4.06 or more, or lower heartbeat_interval to 0.98 or less."
            ),
        ),
        (
            "heartbeat_timeout = 1.0\nheartbeat_interval = 0.2",
            (
                "heartbeat_timeout (1) x 0.99 = 0.99 must be at least stop_budget (0.5, the "
                "default) + 3 x heartbeat_interval (0.2) = 1.1, or two lost messages would stop "
                "the service. "
                "Raise it to 1.12 or more, or lower heartbeat_interval to 0.16 or less."
            ),
        ),
        (
            "stop_budget = 8",
            (
                "heartbeat_timeout (10) x 0.99 = 9.9 must be at least stop_budget (8) + 3 x "
                "heartbeat_interval (1) = 11, or two lost messages would stop the service. Raise "
                "it to 11.12 or more, or lower heartbeat_interval to 0.63 or less, or lower "
                "stop_budget to 6.9 or less."
            ),
        ),
        (
            "kill_budget = 2",
            (
                "kill_budget (2) must be at most half of stop_budget (2.5, the default): the "
                "containers need time to stop before they are killed. "
                "Lower kill_budget to 1.25 or less, or raise stop_budget to 4 or more."
            ),
        ),
        (
            "stop_budget = 1",
            (
                "kill_budget (1, the default) must be at most half of stop_budget (1): the "
                "containers need time to stop before they are killed. "
                "Lower kill_budget to 0.5 or less, or raise stop_budget to 2 or more."
            ),
        ),
    ],
)
def test_timings_that_a_lease_cannot_have(top: str, told: str) -> None:
    key = told.partition(" ")[0]

    assert mistake(top=top) == f"config.toml: {key} {told.partition(' ')[2]}"


@pytest.mark.parametrize(
    "top",
    [
        "heartbeat_timeout = 4.06",
        "heartbeat_timeout = 4\nheartbeat_interval = 0.98",
        "heartbeat_timeout = 1.12\nheartbeat_interval = 0.2",
        "heartbeat_timeout = 1\nheartbeat_interval = 0.16",
        "heartbeat_timeout = 11.12\nstop_budget = 8",
        "heartbeat_interval = 0.63\nstop_budget = 8",
        "stop_budget = 6.9",
        "kill_budget = 1.25",
        "kill_budget = 2\nstop_budget = 4",
        "stop_budget = 1\nkill_budget = 0.5",
    ],
)
def test_every_way_out_leads_out(top: str) -> None:
    assert load(top=top).policy().requires_lease


@pytest.mark.parametrize("timeout", [1, 1.5, 2, 2.2, 3, 5, 10, 60, 3600])
def test_the_default_budgets_suit_every_timeout(timeout: float) -> None:
    top = f"heartbeat_timeout = {timeout}\nheartbeat_interval = {min(1, timeout / 10)}"

    policy = load(top=top).policy()

    assert policy.kill_budget_s <= policy.stop_budget_s / 2
    assert policy.lease_s >= policy.stop_budget_s + 3 * policy.heartbeat_interval_s


# --- the agent's own variables --------------------------------------------------------------------


def test_what_a_fence_is_told_and_the_line_to_the_guard_are_no_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A fence command may itself ask `failover-agent status`."""
    for (
        name
    ) in "CLUSTER=shop ROLE=primary PEER=backup PEER_HOST=b TERM=7 REASON=x LIFELINE=3".split():
        monkeypatch.setenv(*f"FAILOVER_AGENT_{name}".split("="))

    assert load().keys.cluster == "shop"


def test_a_role_of_the_witness_is_one() -> None:
    assert config.choose_role("witness") is Role.WITNESS
    with pytest.raises(ConfigError):
        config.choose_role("Witness")
