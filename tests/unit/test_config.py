"""config.toml and environment: what they give, and what each mistake in them is answered with."""

import json
import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from failover_agent import config
from failover_agent.config import Arbiter, ArbiterKind, Keys, MistakesError, Settings
from failover_agent.config.keys import is_table_of_tables, table_of
from failover_agent.core.policy import LoneStart, PartitionPolicy, Policy, Role
from failover_agent.errors import ConfigError, ExitCode, SecretError

TOP = Path(__file__).resolve().parents[2]

PAIR = """\
containers = ["db", "web"]
{top}
[primary]
endpoint = "http://10.0.0.2:8000"
{primary}
[backup]
endpoint = "http://10.0.0.1:8000"
{backup}
[security]
{security}
"""
SECRET = 'secret = "sixteen letters!"'


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith("FAILOVER_AGENT_") or name.startswith("DOCKER_"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a message begins with "config.toml", as in the style guide."""
    monkeypatch.chdir(tmp_path)


def write(text: str | bytes | None = None, **parts: str) -> Path:
    path = Path("config.toml")
    if text is None:
        text = PAIR.format(**{"top": "", "primary": "", "backup": "", "security": SECRET} | parts)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def load(text: str | bytes | None = None, role: str = "primary", **parts: str) -> Settings:
    return config.load(write(text, **parts), role)


def mistakes(text: str | bytes | None = None, **parts: str) -> list[str]:
    """Every mistake as it is told; none must be told twice."""
    with pytest.raises(MistakesError) as caught:
        load(text, **parts)
    assert caught.value.exit_code is ExitCode.USAGE
    told = [str(mistake) for mistake in caught.value.mistakes]
    assert str(caught.value) == "\n".join(told)
    assert len(set(told)) == len(told)
    return told


def mistake(text: str | bytes | None = None, **parts: str) -> str:
    (told,) = mistakes(text, **parts)
    return told


# --- what is read --------------------------------------------------------------------------------


def test_the_names_of_the_readme_alone_with_a_secret_make_a_valid_pair() -> None:
    settings = load(
        """
        containers = ["db", "web"]
        heartbeat_interval = 1.0
        check_heartbeat_interval = 1.0
        heartbeat_timeout = 10.0
        startup_grace_period = 20.0
        restart_grace_period = 30.0
        [primary]
        port = 8000
        endpoint = "http://10.0.0.2:8000"
        [backup]
        port = 8000
        endpoint = "http://10.0.0.1:8000"
        [security]
        secret = "sixteen letters!"
        """
    )

    assert settings.role is Role.PRIMARY
    assert settings.secret == b"sixteen letters!"
    assert settings.keys.containers == ("db", "web")


def test_what_is_left_out_has_the_defaults_of_the_design() -> None:
    settings = load()
    keys, node, policy = settings.keys, settings.node, settings.policy()

    assert (node.bind, node.port) == ("0.0.0.0", 8000)
    assert node.endpoints == ("http://10.0.0.2:8000",)
    assert node.peer is Role.BACKUP
    assert node.state_dir == Path("/var/lib/failover-agent/default")
    assert node.control_socket == Path("/run/failover-agent/default.sock")
    assert settings.docker_host == "unix:///var/run/docker.sock"
    assert (keys.docker.stop_timeout, keys.docker.start_timeout) == (None, 60)
    assert (keys.log.format, keys.log.level, keys.security.read_access) == ("text", "info", "open")
    assert policy == Policy(
        role=Role.PRIMARY,
        containers=("db", "web"),
        fingerprint=policy.fingerprint,
        settings=policy.settings,
    )


def test_the_defaults_of_state_dir_and_socket_name_the_cluster() -> None:
    node = load(top='cluster = "shop"').node

    assert node.state_dir == Path("/var/lib/failover-agent/shop")
    assert node.control_socket == Path("/run/failover-agent/shop.sock")


def test_a_role_reads_its_own_table() -> None:
    settings = load(
        role="backup",
        backup='port = 9000\nbind = "::"\nstate_dir = "/srv/a"\ncontrol_socket = "/srv/b"',
    )

    assert settings.node.endpoints == ("http://10.0.0.1:8000",)
    assert (settings.node.bind, settings.node.port) == ("::", 9000)
    assert settings.node.state_dir == Path("/srv/a")
    assert settings.node.control_socket == Path("/srv/b")
    assert settings.policy().role is Role.BACKUP
    assert settings.policy(Role.PRIMARY).role is Role.PRIMARY


def test_every_setting_of_the_pair_reaches_the_policy() -> None:
    policy = load(
        top="""
        heartbeat_interval = 2
        check_heartbeat_interval = 3
        heartbeat_timeout = 40
        startup_grace_period = 5
        restart_grace_period = 6
        partition_policy = "consistency"
        restart_attempts = 0
        restart_policy = "refuse"
        max_failovers = 8
        failover_window = 9
        on_engine_lost = "handover"
        on_stop = "leave"
        lone_start = "start"
        """
    ).policy()

    assert (policy.heartbeat_interval_s, policy.check_heartbeat_interval_s) == (2, 3)
    assert policy.heartbeat_timeout_s == 40
    assert (policy.startup_grace_period_s, policy.restart_grace_period_s) == (5, 6)
    assert (policy.stop_budget_s, policy.kill_budget_s) == (10, 4)
    assert policy.partition_policy is PartitionPolicy.CONSISTENCY
    assert (policy.restart_attempts, policy.restart_policy) == (0, "refuse")
    assert (policy.max_failovers, policy.failover_window_s) == (8, 9)
    assert (policy.on_engine_lost, policy.on_stop) == ("handover", "leave")
    assert policy.lone_start is LoneStart.START


def test_only_what_decides_quorum_is_in_the_fingerprint() -> None:
    usual = load().policy()

    assert load(role="backup").policy().fingerprint == usual.fingerprint
    assert load(top="heartbeat_timeout = 20").policy().fingerprint == usual.fingerprint
    for decisive in ('cluster = "shop"', 'partition_policy = "consistency"'):
        assert load(top=decisive).policy().fingerprint != usual.fingerprint


def test_both_nodes_tell_each_other_the_same_settings_and_nothing_secret() -> None:
    primary = load(primary="port = 9").policy()
    backup = load(role="backup", backup="port = 7").policy()

    assert primary.settings == backup.settings
    assert dict(primary.settings)["heartbeat_timeout"] == "10"
    assert dict(primary.settings)["containers"] == "db, web"
    assert "sixteen" not in repr(primary)
    assert load(top="heartbeat_timeout = 20").policy().settings != primary.settings


def test_the_secret_is_not_in_what_a_log_or_a_traceback_would_show() -> None:
    assert "sixteen" not in repr(load())


def test_a_file_with_a_byte_order_mark_is_read() -> None:
    text = PAIR.format(top="", primary="", backup="", security=SECRET)

    assert load(text.encode("utf-8-sig")).keys.containers == ("db", "web")


def test_an_endpoint_may_be_a_list_of_one_and_end_in_a_slash() -> None:
    text = PAIR.format(top="", primary="", backup="", security=SECRET)

    assert load(
        text.replace('"http://10.0.0.2:8000"', '["http://[FD00::2]:80/"]')
    ).node.endpoints == ("http://[fd00::2]:80",)


# --- where it is read from -----------------------------------------------------------------------


def test_the_option_wins_over_the_environment_and_the_environment_over_the_usual_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert config.choose_path() == Path("/etc/failover-agent/config.toml")
    monkeypatch.setenv("FAILOVER_AGENT_CONFIG", "/somewhere/else.toml")
    assert config.choose_path() == Path("/somewhere/else.toml")
    assert config.choose_path(Path("mine.toml")) == Path("mine.toml")

    monkeypatch.setenv("FAILOVER_AGENT_ROLE", "backup")
    assert config.choose_role() is Role.BACKUP
    assert config.choose_role("primary") is Role.PRIMARY


@pytest.mark.parametrize(
    ("role", "told"),
    [
        (
            None,
            (
                "--role: which node this is has not been said. "
                "Add --role primary or --role backup (on a witness, --role witness), "
                "or set FAILOVER_AGENT_ROLE."
            ),
        ),
        (
            "master",
            (
                '--role: "master" is not a role. It is primary on one host, backup on the other, '
                "and witness on a third, where there is one."
            ),
        ),
    ],
)
def test_a_role_that_is_none_is_refused(role: str | None, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.choose_role(role)

    assert str(caught.value) == told


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {
        "CLUSTER": "5",
        "CONTAINERS": "app, cache",
        "HEARTBEAT_TIMEOUT": "20",
        "RESTART_ATTEMPTS": "0",
        "ON_STOP": "leave",
        "PRIMARY__PORT": "9000",
        "primary__endpoint": "http://10.9.9.9:1",
        "BACKUP__STATE_DIR": "/srv/state",
        "SECURITY__ALLOW_UNAUTHENTICATED": "false",
        "LOG__FORMAT": "json",
        "DOCKER__STOP_TIMEOUT": "7",
        "ROLE": "backup",
        "CONFIG": "/elsewhere.toml",
    }.items():
        monkeypatch.setenv(f"FAILOVER_AGENT_{name}", text)

    settings = load(top='heartbeat_timeout = 10\non_stop = "handover"', primary="port = 8000")
    keys = settings.keys

    assert keys.cluster == "5"
    assert keys.containers == ("app", "cache")
    assert (keys.heartbeat_timeout, keys.restart_attempts, keys.on_stop) == (20, 0, "leave")
    assert (settings.node.port, settings.node.endpoints) == (9000, ("http://10.9.9.9:1",))
    assert keys.backup.state_dir == Path("/srv/state")
    assert keys.backup.endpoint == ("http://10.0.0.1:8000",)
    assert (keys.log.format, keys.docker.stop_timeout) == ("json", 7)


def test_a_list_in_the_environment_may_be_written_as_in_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAILOVER_AGENT_CONTAINERS", '["app", "cache"]')

    assert load().keys.containers == ("app", "cache")


def test_docker_host_is_that_of_the_file_before_that_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://10.0.0.9:2375")

    assert load().docker_host == "tcp://10.0.0.9:2375"
    assert load(top='[docker]\nhost = "unix:///a.sock"').docker_host == "unix:///a.sock"
    assert load(top='[docker]\nhost = "http://[::1]:2375/"').docker_host == "tcp://[::1]:2375"


# --- the file itself -----------------------------------------------------------------------------


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(MistakesError) as caught:
        config.load(Path("config.toml"), "primary")

    assert str(caught.value) == (
        "config.toml: there is no such file. Name yours with --config, or write one with "
        "`failover-agent init --primary HOST --backup HOST --containers NAME,NAME`."
    )


def test_a_file_that_may_not_be_read_names_the_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    write().chmod(0o200)

    def denied(path: Path, *_arguments: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", denied)  # as root nothing is denied
    with pytest.raises(MistakesError) as caught:
        config.load(Path("config.toml"), "primary")

    uid = os.geteuid()
    assert str(caught.value) == (
        "config.toml: the file cannot be read (Permission denied; mode 0200, "
        f"owner uid {uid}, this is uid {uid}). "
        "Run as its owner or as root, or name another one with --config."
    )


def unreadable(path: str) -> str:
    with pytest.raises(MistakesError) as caught:
        config.load(Path(path), "primary")
    return str(caught.value)


def test_what_is_no_file_in_place_of_the_file() -> None:
    """A pipe that nobody writes to would be waited for, a device may have no end."""
    os.mkfifo("pipe")
    for path, kind in (("/", "a directory"), ("pipe", "a pipe"), ("/dev/zero", "a device")):
        told = unreadable(path)
        assert told.startswith(f"{path}: the file cannot be read (it is {kind} and no file; ")
        assert told.endswith("Name the file itself, or name another one with --config.")


def test_a_file_that_is_no_configuration() -> None:
    with Path("config.toml").open("wb") as file:
        file.truncate(100_000_000)
    assert unreadable("config.toml") == (
        "config.toml: the file has more than 1000000 bytes. "
        "This is no configuration; name yours with --config."
    )


def test_links_that_lead_nowhere() -> None:
    Path("one").symlink_to("other")
    Path("other").symlink_to("one")
    assert unreadable("one").endswith(
        "The links lead round in a circle: mend them (`namei -l one` shows each), or name another "
        "one with --config."
    )
    assert "Mend the name, or name another" in unreadable("/dev/null/config.toml")
    assert "Mend the name, or name another" in unreadable("a" * 300)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            'cluster = "shop"\ncontainers = [db, web]\n',
            (
                "config.toml, line 2, column 15: this is not TOML: invalid value. "
                "The line reads `containers = [db, web]`. Text stands in double quotes, "
            ),
        ),
        (
            "port = 1\nport = 2\n",
            (
                "config.toml, line 2, column 9: this is not TOML: this setting is given twice. "
                "The line reads `port = 2`. "
            ),
        ),
        (
            "[primary]\nport = 1\n[backup]\n[primary]\n",
            (
                "config.toml, line 4, column 9: this is not TOML: [primary] is there twice. "
                "The line reads `[primary]`. "
            ),
        ),
        (
            "cluster = \u201cshop\u201d\n",
            (
                "config.toml, line 1, column 11: this is not TOML: invalid value. The line reads "
                "`cluster = \u201cshop\u201d`. Its quotes are those of a word processor: "
                'write plain ones, ".'
            ),
        ),
        ("containers:\n  - db\n", "config.toml, line 1, column 11: this is not TOML: expected '='"),
        ('{"containers": ["db"]}', "config.toml, line 1, column 1: this is not TOML: invalid stat"),
        ("a = 1\rb = 2\r", "config.toml, line 1, column 6: this is not TOML: expected newline"),
        ("a = 1\n\0\n", "config.toml, line 2, column 1: this is not TOML: invalid statement. "),
        (
            "a = 1".encode("utf-16"),
            "config.toml, line 1: the file is not UTF-8 (byte 0xff). Save it as UTF-8.",
        ),
        ("containers = [\n", "config.toml, line 1: this is not TOML: invalid value. "),
        ("x = " + "[" * 5000, "config.toml, line 1: this is not TOML: "),
        ("x = " + "1" * 5000, "config.toml, line 1: this is not TOML: "),
        (b"# \xe4\n", "config.toml, line 1: the file is not UTF-8 (byte 0xe4). Save it as UTF-8."),
    ],
)
def test_a_file_that_is_not_toml_names_the_line(text: str | bytes, told: str) -> None:
    assert mistake(text).startswith(told)


@pytest.mark.parametrize(
    "text",
    [
        "secret = hunter2\n",
        'security = { secret = "hunter2\n',
        '[arbiter]\npassword = "hunter2\n',
        '[security]\n"secret" = hunter2\n',
        '[security]\nsecret = """\nhunter2\n',
    ],
)
def test_a_broken_line_with_the_secret_in_it_is_not_shown(text: str) -> None:
    assert "hunter2" not in mistake(text)


@pytest.mark.parametrize(
    "text", ["[[security]]\nsecret = 'hunter2hunter2hunter2'", "security = 'hunter2hunter2hunter2'"]
)
def test_a_secret_in_the_wrong_kind_of_table_is_not_shown(text: str) -> None:
    assert "hunter2" not in str(mistakes(text))


# --- unknown keys --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        (
            {"top": "hartbeat_timeout = 5"},
            "config.toml: hartbeat_timeout is not a setting. Did you mean heartbeat_timeout?",
        ),
        (
            {"primary": "prot = 5"},
            "config.toml: [primary] prot is not a setting. Did you mean port?",
        ),
        (
            {"top": "[primry]\nport = 5"},
            "config.toml: [primry] is not a table. Did you mean [primary]?",
        ),
        (
            {"top": "[standby]\nport = 5"},
            (
                "config.toml: [standby] is not a table. Tables: primary, backup, arbiter, witness, "
                "security, docker, log. Those of the nodes are [primary] and [backup]."
            ),
        ),
        (
            {"top": "[arbitre]\nkind = 5"},
            "config.toml: [arbitre] is not a table. Did you mean [arbiter]?",
        ),
        (
            {"top": "port = 5"},
            "config.toml: port is not a setting. It belongs in [primary], [backup] or [witness].",
        ),
        (
            {"primary": "heartbeat_timeout = 5"},
            (
                "config.toml: [primary] heartbeat_timeout is not a setting. "
                "It belongs at the top of the file, above the first [table]."
            ),
        ),
        (
            {"primary": "hartbeat_timeout = 5"},
            (
                "config.toml: [primary] hartbeat_timeout is not a setting. Did you mean "
                "heartbeat_timeout? It belongs at the top of the file, above the first [table]."
            ),
        ),
        (
            {"primary": "zzz = 5"},
            (
                "config.toml: [primary] zzz is not a setting. "
                "[primary] knows port, endpoint, bind, state_dir, control_socket."
            ),
        ),
        (
            {"top": "secret_file = 5"},
            (
                "config.toml: secret_file is not a setting. "
                "It belongs in [witness.clusters.NAME] or [security]."
            ),
        ),
        (
            {"top": "[witness.clusters.shop]\nsecret = 5"},
            (
                "config.toml: [witness.clusters.shop] secret is not a setting. "
                "It belongs in [security]."
            ),
        ),
        (
            {"top": "[witness.clusters.shop]\nsecret_fil = 5"},
            (
                "config.toml: [witness.clusters.shop] secret_fil is not a setting. "
                "Did you mean secret_file?"
            ),
        ),
        (
            {"security": f"{SECRET}\nzzz = 5"},
            "config.toml: [security] zzz is not a setting. [security] knows secret_file, ",
        ),
        ({"top": "_env_file = 5"}, "config.toml: _env_file is not a setting. "),
    ],
)
def test_an_unknown_key_is_refused_with_what_was_meant(parts: dict[str, str], told: str) -> None:
    assert mistake(**parts).startswith(told)


@pytest.mark.parametrize(
    ("variable", "told"),
    [
        ("HEARTBEAT_TIMOUT", "Did you mean FAILOVER_AGENT_HEARTBEAT_TIMEOUT?"),
        ("PRIMARY_PORT", "Did you mean FAILOVER_AGENT_PRIMARY__PORT?"),
        ("PRIMRY__PORT", "Did you mean FAILOVER_AGENT_PRIMARY__PORT?"),
        ("PRIMARY__PROT", "Did you mean FAILOVER_AGENT_PRIMARY__PORT?"),
        ("XYZZY", "Unset it."),
    ],
)
def test_an_unknown_variable_is_refused_with_what_was_meant(
    variable: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"FAILOVER_AGENT_{variable}", "5")

    assert mistake() == f"environment: FAILOVER_AGENT_{variable} is not a setting. {told}"


def test_a_misspelt_key_that_is_required_is_not_also_missing() -> None:
    text = PAIR.format(top="", primary="", backup="", security='secert = "sixteen letters!"')

    assert mistakes(text.replace("containers", "container").replace("endpoint", "endpiont")) == [
        "config.toml: container is not a setting. Did you mean containers?",
        "config.toml: [primary] endpiont is not a setting. Did you mean endpoint?",
        "config.toml: [backup] endpiont is not a setting. Did you mean endpoint?",
        "config.toml: [security] secert is not a setting. Did you mean secret?",
    ]


# --- values of the wrong kind --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            'heartbeat_timeout = "10"',
            (
                'heartbeat_timeout ("10") must be a number of seconds. '
                "Write heartbeat_timeout = 10.0, for example."
            ),
        ),
        ("heartbeat_interval = true", "heartbeat_interval (true) must be a number of seconds. "),
        ("heartbeat_timeout = nan", "heartbeat_timeout (nan) must be a number of seconds. "),
        ("failover_window = inf", "failover_window (inf) must be a number of seconds. "),
        (f"failover_window = 1{'0' * 400}", "failover_window (1000"),
        (
            "startup_grace_period = -1",
            (
                "startup_grace_period (-1) must be 0 or more. "
                "Write startup_grace_period = 20.0, for example."
            ),
        ),
        (
            "restart_grace_period = -2",
            (
                "restart_grace_period (-2) must be 0 or more. "
                "Write restart_grace_period = 30.0, for example."
            ),
        ),
        ("restart_attempts = 1.5", "restart_attempts (1.5) must be a whole number. "),
        (
            "restart_attempts = -1",
            "restart_attempts (-1) must be 0 or more. Write restart_attempts = 3, for example.",
        ),
        (
            "max_failovers = 0",
            (
                "max_failovers (0) must be 1 or more: with none the pair would never fail over. "
                "Write max_failovers = 3, for example."
            ),
        ),
        (
            "heartbeat_interval = 0.05",
            (
                "heartbeat_interval (0.05) must be 0.1 or more: timers of a host under load are "
                "late by more than that. Write heartbeat_interval = 1.0, for example."
            ),
        ),
        (
            "heartbeat_timeout = 0.5",
            (
                "heartbeat_timeout (0.5) must be 1 or more: a host under load is late by tenths of "
                "a second without being dead. Write heartbeat_timeout = 10.0, for example."
            ),
        ),
        (
            "heartbeat_timeout = 4000",
            (
                "heartbeat_timeout (4000) must be 3600 or less. It counts seconds: write "
                "heartbeat_timeout = 10.0, for example."
            ),
        ),
        ("cluster = 5", 'cluster (5) must be text. Put it in double quotes: "5".'),
        (
            'cluster = "a/b"',
            (
                'cluster ("a/b") is part of file names. '
                "Use 1 to 63 letters, digits, and after the first also _ . and -."
            ),
        ),
        (
            'partition_policy = "consistancy"',
            (
                'partition_policy ("consistancy") must be "availability" or "consistency". '
                'Did you mean "consistency"?'
            ),
        ),
        ("on_stop = 5", 'on_stop (5) must be "handover" or "leave". Write on_stop = "handover", '),
        ("log = 5", "log must be a table. Write [log] on a line of its own, "),
        ('[log]\nlevel = "warn"', '[log] level ("warn") must be "debug", "info", "warning" or '),
        ("[docker]\nstop_timeout = -1", "[docker] stop_timeout (-1) must be 0 or more. "),
        ("[docker]\nstart_timeout = 0", "[docker] start_timeout (0) must be above 0. "),
    ],
)
def test_a_value_of_the_wrong_kind(line: str, told: str) -> None:
    assert mistake(top=line).startswith(f"config.toml: {told}")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("port = 0", "port (0) must be 1 or more. "),
        ("port = 65536", "port (65536) must be 65535 or less. "),
        ('port = "8000"', 'port ("8000") must be a whole number. Write port = 8000, for example.'),
        ('bind = "[::]"', 'bind ("[::]") has brackets. Write "::".'),
        (
            'bind = "http://10.0.0.1:1"',
            'bind ("http://10.0.0.1:1") is a URL. Write "10.0.0.1" alone.',
        ),
        ('bind = "10.0.0.1:8000"', 'bind ("10.0.0.1:8000") has a port. Write "10.0.0.1" alone.'),
        ('bind = ""', 'bind ("") is neither a host name nor an IP address. '),
        (
            'state_dir = "state"',
            'state_dir ("state") depends on where the agent is started. Write the whole path, ',
        ),
        ('state_dir = "~/state"', 'state_dir ("~/state") depends on where the agent is started. '),
        ('state_dir = "/a\\u0000b"', "state_dir ("),
        (
            f'control_socket = "/{"x" * 107}"',
            (
                'control_socket ("/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...) '
                "has 108 bytes, and the path of a socket has room for 107. Choose a shorter one."
            ),
        ),
    ],
)
def test_a_value_of_a_node_of_the_wrong_kind(line: str, told: str) -> None:
    assert mistake(primary=line).startswith(f"config.toml: [primary] {told}")


def test_a_wrong_value_in_the_environment_names_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAILOVER_AGENT_PRIMARY__PORT", "http")
    monkeypatch.setenv("FAILOVER_AGENT_CONTAINERS", "[db")

    assert mistakes() == [
        (
            'environment: FAILOVER_AGENT_CONTAINERS ("[db") must be a list. '
            "Write FAILOVER_AGENT_CONTAINERS=db,web."
        ),
        (
            'environment: FAILOVER_AGENT_PRIMARY__PORT ("http") must be a whole number. '
            "Write FAILOVER_AGENT_PRIMARY__PORT=8000, for example."
        ),
    ]


# --- containers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("containers", "told"),
    [
        (
            "[]",
            (
                "containers names no container. Write those of the service in the order of their "
                'start: containers = ["db", "web"]. `docker ps -a` shows them.'
            ),
        ),
        ('"web"', 'containers ("web") must be a list. Write containers = ["web"].'),
        ("[1]", 'containers (1) must be text. Put it in double quotes: "1".'),
        (
            '["w"]',
            (
                'containers ("w") is not a name that Docker gives to a container. It has two '
                "characters or more: letters, digits, and after the first also _ . and -. "
            ),
        ),
        ('["a b"]', 'containers ("a b") is not a name that Docker gives to a container. '),
        ('["/web"]', 'containers ("/web") has a blank or a slash around the name. Write "web".'),
        (
            str([f"c{number}" for number in range(1001)]).replace("'", '"'),
            "containers names 1001 containers, and a message has room for 1000. ",
        ),
        (
            str([f"c{number}".ljust(30, "x") for number in range(1000)]).replace("'", '"'),
            "containers has names of 30000 letters together, and a message has room for 24576. ",
        ),
        (
            '["db", "web", "db"]',
            (
                'containers (["db", "web", "db"]) names db more than once. '
                "Name each container once, where it belongs in the order of the start."
            ),
        ),
    ],
)
def test_containers_that_cannot_be_meant(containers: str, told: str) -> None:
    text = PAIR.format(top="", primary="", backup="", security=SECRET)

    assert mistake(text.replace('["db", "web"]', containers)).startswith(f"config.toml: {told}")


# --- addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "told"),
    [
        ("10.0.0.2:8000", 'has no scheme. Write "http://10.0.0.2:8000".'),
        ("", 'has no scheme. Write "http://HOST:8000".'),
        ("http://10.0.0.2", 'names no port. Write "http://10.0.0.2:8000".'),
        ("http://10.0.0.2:0", 'names no port. Write "http://10.0.0.2:8000".'),
        ("http://10.0.0.2:80000", "has no valid port. A port is a number from 1 to 65535."),
        ("http://10.0.0.2:http", "has no valid port. A port is a number from 1 to 65535."),
        ("http://:8000", 'names no host. Write it as "http://HOST:PORT".'),
        (
            "https://10.0.0.2:8000",
            (
                "asks for TLS, which is not in this version yet. "
                'Write "http://10.0.0.2:8000"; the secret signs every message all the same.'
            ),
        ),
        ("ftp://10.0.0.2:8000", 'has the scheme ftp. Agents speak HTTP: "http://HOST:PORT".'),
        (
            "http://10.0.0.2:8000/v1",
            'is more than an address. Write "http://10.0.0.2:8000" and no more.',
        ),
        (
            "http://fd00::2:8000",
            'has an IPv6 address without brackets. Write "http://[fd00::2]:8000".',
        ),
        ("http://[fd00::2", 'is not an address. Write it as "http://HOST:PORT".'),
        ("http://10.0.0.2 :8000", 'has blanks in it. Write it as "http://HOST:PORT".'),
        (
            "http://0.0.0.0:8000",
            (
                "is every address of a host and so nobody's. "
                "Write the address at which this node reaches the other one."
            ),
        ),
    ],
)
def test_an_endpoint_that_is_no_address(endpoint: str, told: str) -> None:
    text = PAIR.format(top="", primary="", backup="", security=SECRET)

    assert mistake(text.replace("http://10.0.0.2:8000", endpoint)) == (
        f'config.toml: [primary] endpoint ("{endpoint}") {told}'
    )


def test_an_endpoint_that_is_missing() -> None:
    assert mistake(
        f'containers = ["web"]\n[backup]\nendpoint = "http://a:1"\n[security]\n{SECRET}'
    ) == (
        "config.toml: [primary] endpoint is missing: it is the address of the other agent. "
        "Below [primary], where does the backup listen? "
        'endpoint = "http://ADDRESS-OF-THE-BACKUP:8000"'
    )


@pytest.mark.parametrize(
    ("bind", "endpoint"),
    [
        ("10.0.0.1", "10.0.0.1:8000"),
        ("0.0.0.0", "127.0.0.1:8000"),
        ("::", "localhost:8000"),
        ("host-a", "HOST-A:8000"),
    ],
)
def test_an_endpoint_that_is_our_own(bind: str, endpoint: str) -> None:
    text = PAIR.format(top="", primary=f'bind = "{bind}"', backup="", security=SECRET)
    text = text.replace("http://10.0.0.1:8000", "http://10.0.0.77:8000")
    text = text.replace("http://10.0.0.2:8000", f"http://{endpoint}")

    assert mistake(text) == (
        f"config.toml: [primary] endpoint (http://{endpoint.lower()}) is where the primary itself "
        f"listens (bind {bind}, port 8000). Write the address of the other agent, the backup."
    )


def test_two_endpoints_that_are_the_same() -> None:
    text = PAIR.format(top="", primary="", backup="", security=SECRET)

    assert mistake(text.replace("10.0.0.1", "10.0.0.2")) == (
        "config.toml: [backup] endpoint (http://10.0.0.2:8000) is the same as that of [primary], "
        "and so one of the two nodes would talk to itself. Each names the OTHER agent: below "
        "[primary] the address of the backup, below [backup] that of the primary."
    )


def test_two_agents_on_one_machine_can_be_tried_out() -> None:
    text = PAIR.format(top="", primary="port = 8001", backup="port = 8002", security=SECRET)
    text = text.replace("10.0.0.2:8000", "127.0.0.1:8002").replace(
        "10.0.0.1:8000", "127.0.0.1:8001"
    )

    assert load(text).node.endpoints == ("http://127.0.0.1:8002",)


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("/var/run/docker.sock", 'has no scheme. Write "unix:///var/run/docker.sock".'),
        (
            "unix://var/run/docker.sock",
            (
                'needs the whole path of the socket. Write "unix:///var/run/docker.sock", with '
                "three slashes."
            ),
        ),
        ("tcp://10.0.0.1", 'needs a host and a port. Write "tcp://HOST:2375".'),
        ("tcp://10.0.0.1:99999", 'needs a host and a port. Write "tcp://HOST:2375".'),
        ("https://10.0.0.1", 'needs a host and a port. Write "https://HOST:2376".'),
        (
            "ssh://me@10.0.0.1",
            (
                "goes through a login, which an agent cannot keep alive. An agent runs on the host "
                'of its engine: write "unix:///var/run/docker.sock"; or "https://HOST:2376" for an '
                "engine with TLS."
            ),
        ),
        (
            "npipe:////./pipe/docker_engine",
            (
                "cannot be used: an agent speaks to the engine of its own host. "
                'Write "unix:///var/run/docker.sock" or "tcp://HOST:2375", or leave it out.'
            ),
        ),
    ],
)
def test_a_docker_host_that_cannot_be_used(
    host: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = f'("{host}") {told}'
    assert mistake(top=f'[docker]\nhost = "{host}"').startswith(
        f"config.toml: [docker] host {expected}"
    )

    monkeypatch.setenv("DOCKER_HOST", host)
    assert mistake().startswith(f"environment: DOCKER_HOST {expected}")


# --- contradictions ------------------------------------------------------------------------------


def test_a_timeout_below_two_intervals() -> None:
    assert mistake(top="heartbeat_timeout = 3.0\nheartbeat_interval = 2.0") == (
        "config.toml: heartbeat_timeout (3.0) must be at least 2 x heartbeat_interval (2.0) = 4.0, "
        "or one lost message looks like a dead peer. "
        "Raise it to 4 or more, or lower heartbeat_interval to 1.5 or less."
    )
    assert load(top="heartbeat_timeout = 4\nheartbeat_interval = 2").keys.heartbeat_timeout == 4


def test_a_contradiction_with_a_value_that_is_wrong_anyway_is_not_told() -> None:
    assert len(mistakes(top="heartbeat_timeout = 1.5\nheartbeat_interval = 0")) == 1


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            'mode = "observe"',
            'mode ("observe") is not in this version yet: an agent that runs also',
        ),
        ('failback = "auto"', 'failback ("auto") is not in this version yet: the service stays '),
        (
            "failback_delay = 5",
            "failback_delay (5.0) changes nothing in this version: there is no failback but ",
        ),
        ("fence_timeout = 5", "fence_timeout (5.0) changes nothing: there is no fence_command. "),
        ("stop_budget = 2", "stop_budget (2.0) changes nothing: it bounds a lease, and there is "),
        ("kill_budget = 2", "kill_budget (2.0) changes nothing: it bounds a lease, and there is "),
    ],
)
def test_what_would_change_nothing_is_refused(line: str, told: str) -> None:
    assert mistake(top=line).startswith(f"config.toml: {told}")


def test_a_later_setting_with_the_value_that_this_version_has_is_taken() -> None:
    keys = load(
        top='mode = "act"\nfailback = "manual"\nfailback_delay = 300\nfence_timeout = 30\n'
        "stop_budget = 2.5\nkill_budget = 1.0"
    ).keys

    assert (keys.stop_budget, keys.kill_budget, keys.mode) == (2.5, 1.0, "act")


def test_all_mistakes_are_told_together() -> None:
    told = mistakes(
        top='hartbeat_interval = 1\nheartbeat_timeout = "x"\nmode = "observe"',
        primary="port = 0",
        security='secret_file = "nowhere"',
    )

    assert [line.split()[1] for line in told] == [
        "hartbeat_interval",
        "heartbeat_timeout",
        "[primary]",
        "mode",
        "there",
    ]


# --- the secret ----------------------------------------------------------------------------------


def secret_file(
    content: bytes = b"sixteen letters!\n", mode: int = 0o600, name: str = "secret"
) -> str:
    path = Path(name)
    path.write_bytes(content)
    path.chmod(mode)
    return f'secret_file = "{name}"'


def test_a_secret_file_is_found_beside_the_file_and_loses_its_newline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(security=secret_file())
    monkeypatch.chdir("/")

    assert config.load(tmp_path / "config.toml", "primary").secret == b"sixteen letters!"


def test_without_a_secret_messages_are_not_signed_where_that_is_allowed() -> None:
    assert load(security="allow_unauthenticated = true").secret is None


def secret_mistake(security: str) -> str:
    write(security=security)
    with pytest.raises(MistakesError) as caught:
        config.load(Path("config.toml"), "primary")
    (found,) = caught.value.mistakes
    assert isinstance(found, SecretError)
    return str(found)


def test_no_secret_at_all() -> None:
    told = (
        "config.toml: there is no secret, and without one anybody on the network could move the "
        "service. (umask 077; head -c 32 /dev/urandom | base64 > secret) makes one; name it below "
        '[security]: secret_file = "secret"'
    )

    assert secret_mistake("") == told
    assert secret_mistake("allow_unauthenticated = false") == told


def test_more_than_one_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    assert secret_mistake(f"{SECRET}\nallow_unauthenticated = true") == (
        "config.toml: [security] secret and [security] allow_unauthenticated exclude each other. "
        "Leave one of them, best secret."
    )
    monkeypatch.setenv("FAILOVER_AGENT_SECURITY__SECRET", "another long enough")
    assert secret_mistake(secret_file()) == (
        "config.toml: [security] secret_file and FAILOVER_AGENT_SECURITY__SECRET exclude each "
        "other. Leave one of them, best secret_file."
    )


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_secret_that_others_can_read(mode: int) -> None:
    assert secret_mistake(secret_file(mode=mode)) == (
        f"secret: the secret is open to other users (mode {mode:04o}, wanted 0600). "
        "chmod 600 secret"
    )


def test_a_secret_file_that_is_missing() -> None:
    assert secret_mistake('secret_file = "my secret"') == (
        "my secret: there is no file with the secret. Copy it from the other node, with its "
        "mode. If neither has one, make it with (umask 077; head -c 32 "
        "/dev/urandom | base64 > 'my secret') and copy it there."
    )


@pytest.mark.parametrize("content", [b"", b"\n", b"fifteen letters\n", b" " * 40])
def test_a_secret_that_is_too_short(content: bytes) -> None:
    assert secret_mistake(secret_file(content)) == (
        f"secret: the secret has {len(content.strip())} bytes, and fewer than 16 can be guessed. "
        "Make a new one with (umask 077; head -c 32 /dev/urandom | base64 > secret) and copy it to "
        "the other node."
    )
    assert "fewer than 16 can be guessed" in secret_mistake('secret = "short"')


def test_a_secret_file_that_is_no_secret() -> None:
    assert secret_mistake(secret_file(b"x" * 5000)).startswith(
        "secret: the secret is longer than 4096 bytes. "
    )
    assert secret_mistake('secret_file = "/dev/zero"').startswith(
        "/dev/zero: the secret cannot be read (it is a device and no file). "
    )
    os.mkfifo("pipe", 0o600)
    assert secret_mistake('secret_file = "pipe"').startswith(
        "pipe: the secret cannot be read (it is a pipe and no file). "
    )
    assert secret_mistake('secret_file = "/"').startswith(
        "/: the secret cannot be read (it is a directory and no file). "
    )


def test_a_secret_file_whose_name_is_none() -> None:
    assert mistake(security='secret_file = "a\\u0000"').startswith(
        'config.toml: [security] secret_file ("a\\u0000") has control characters in it. '
    )


def test_a_secret_of_the_wrong_kind_is_not_shown() -> None:
    assert mistake(security="secret = 1234567890") == (
        "config.toml: [security] secret (not shown here) must be text. "
        'Put it in double quotes: "...".'
    )


# --- whatever it is ------------------------------------------------------------------------------


CALM: dict[str, Any] = {
    "deadline": None,  # a busy machine is no mistake
    "suppress_health_check": [HealthCheck.function_scoped_fixture],  # one folder for all is fine
}
LITERALS = st.sampled_from(
    """0 -1 1 1.5 1e400 -0.0 nan inf true false "" "x" "web" "a b" "::" "/" [] {} [1] ["web"] [[]]
    "http://10.0.0.1:8000" ["web",["web"]] {a=1} 1979-05-27 07:32:00 "\\u0000" "\\u001b[2J"
    99999999999999999999""".split()
)
PLACES = st.sampled_from(
    [
        "",
        "[primary]",
        "[backup]",
        "[security]",
        "[docker]",
        "[log]",
        "[arbiter]",
        "[witness]",
        "[witness.clusters]",
        '[witness.clusters."a/b"]',
        "[witness.clusters.shop]",
        "[x]",
        "[primary.x]",
    ]
)


def loaded_or_mistakes(text: str | None = None) -> Settings | tuple[ConfigError, ...]:
    try:
        return load(text)
    except MistakesError as error:
        return error.mistakes


def everything() -> list[str]:
    return [
        *sorted({key.rpartition(".")[2] for key in keys_of(Keys)}),
        "x",
        "primary",
        '"a b"',
        "_x",
    ]


@settings(max_examples=150, **CALM)
@given(data=st.data())
def test_whatever_the_file_says_is_taken_or_refused(data: st.DataObject) -> None:
    names = st.sampled_from(everything())
    tables = data.draw(st.lists(PLACES, unique=True))
    lines = [
        line
        for table in sorted(tables)
        for line in (
            table,
            *(
                f"{name} = {data.draw(LITERALS)}"
                for name in data.draw(st.lists(names, unique=True, max_size=6))
            ),
        )
    ]

    found = loaded_or_mistakes("\n".join(lines))
    assert isinstance(found, Settings) or all(each.what and each.todo for each in found)
    assert "validation error" not in str(found)


@settings(max_examples=50, **CALM)
@given(content=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)))
def test_whatever_is_in_the_file_is_refused_with_a_sentence(content: bytes) -> None:
    with pytest.raises(MistakesError):
        config.load(write(content), "primary")


@settings(max_examples=100, **CALM)
@given(data=st.data())
def test_whatever_the_environment_says_is_taken_or_refused(data: st.DataObject) -> None:
    known = [key.replace(".", "__").upper() for key in keys_of(Keys)]
    names = st.sampled_from([*known, "PRIMARY", "PRIMARY__X__Y", "__", "X__", "_", "ARBITER__KIND"])
    texts = st.sampled_from(
        ["", "x", "1", "1.5", "true", "[", "[1]", '["a"]', "{}", "a,b", "http://x:1", "etcd"]
    )
    variables = data.draw(st.dictionaries(names, texts, max_size=5))

    with pytest.MonkeyPatch.context() as patch:
        for name, text in variables.items():
            patch.setenv(f"FAILOVER_AGENT_{name}", text)
        found = loaded_or_mistakes()
    assert isinstance(found, Settings) or all(each.what and each.todo for each in found)


# --- what stands elsewhere about the settings ----------------------------------------------------


def keys_of(model: Any) -> dict[str, Any]:
    """Every key of the model with its default, tables as "table.key", and shop for any name."""
    found: dict[str, Any] = {}
    for name, info in model.model_fields.items():
        if table := table_of(info):
            below = f"{name}.shop" if is_table_of_tables(info) else name
            found |= {f"{below}.{key}": value for key, value in keys_of(table).items()}
        else:
            found[name] = info.default
    return found


def test_the_example_is_a_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAILOVER_AGENT_SECURITY__SECRET_FILE", str(Path("secret").absolute()))
    secret_file()

    settings = config.load(TOP / "config.example.toml", "primary")

    assert settings.keys.cluster == "shop"
    assert settings.policy().heartbeat_timeout_s == 10


def test_the_example_names_every_key_with_its_default() -> None:
    """Uncommented, it says the same as left out."""
    text = (TOP / "config.example.toml").read_text()
    shown = flattened(tomllib.loads(re.sub(r"(?m)^# (\w+ = .|\[)", r"\1", text)))
    known = keys_of(Keys)

    assert list(shown) == list(known)
    for key, value in shown.items():
        if key not in REQUIRED_OR_COMPUTED:
            assert as_toml(value) == as_toml(known[key]), key


def test_the_example_with_an_arbiter_is_a_configuration_for_all_three_hosts() -> None:
    text = (TOP / "config.example.toml").read_text()
    secret_file(), secret_file(name="secret-of-shop")
    for line in (
        "[arbiter]",
        'kind = "witness"',
        'endpoint = "http://10.0.0.3:8000"',
        "[witness.clusters.shop]",
        'secret_file = "/etc/failover-agent/secret-of-shop"',
        "fence_command = []",
    ):
        assert f"\n# {line} " in text
        text = text.replace(f"\n# {line} ", f"\n{line} ")
    path = write(text.replace("/etc/failover-agent/", ""))

    for role in Role:
        assert config.load(path, role).arbiter == Arbiter(
            ArbiterKind.WITNESS, ("http://10.0.0.3:8000",)
        )


def test_the_reference_names_every_key_with_its_default() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (TOP / "docs" / "configuration.md").read_text().splitlines()
        if line.startswith("| `")
    ]
    documented = {row[0].strip("`"): row[1].strip("`") for row in rows}
    known = {
        key.replace("primary.", "ROLE.").replace(".shop.", ".NAME."): default
        for key, default in keys_of(Keys).items()
        if not key.startswith("backup.")
    }

    assert list(documented) == list(known)
    for key, default in documented.items():
        named = key.replace("ROLE.", "primary.").replace(".NAME.", ".shop.")
        if named not in REQUIRED_OR_COMPUTED or key == "cluster":
            assert default == as_toml(known[key]), key


REQUIRED_OR_COMPUTED = {
    "cluster", "containers", "stop_budget", "kill_budget", "docker.host", "docker.stop_timeout",
    "docker.tls_verify", "docker.ca_file", "docker.cert_file", "docker.key_file",
    "primary.endpoint", "backup.endpoint", "primary.state_dir", "backup.state_dir",
    "primary.control_socket", "backup.control_socket", "security.secret_file", "security.secret",
    "arbiter.kind", "arbiter.endpoint", "arbiter.username", "arbiter.password_file",
    "arbiter.password", "arbiter.ca_file", "arbiter.cert_file", "arbiter.key_file",
    "witness.clusters.shop.secret_file",
}  # fmt: skip


def flattened(table: dict[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            found |= flattened(value, f"{above}{key}.")
        else:
            found[f"{above}{key}"] = value
    return found


def as_toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return json.dumps(value)
    return f'"{value}"' if isinstance(value, str | Path) else str(value)
