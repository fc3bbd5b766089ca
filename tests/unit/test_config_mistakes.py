"""A catalogue of mistakes that people make in config.toml and in the environment.

What is told is the whole answer, so that a reader can judge it: where, what, and the way out.
"""

import os
import shutil
from pathlib import Path

import pytest

from failover_agent import config
from failover_agent.config import MistakesError, Settings
from failover_agent.config.keys import Keys, names, table_of
from failover_agent.errors import ExitCode
from tests.unit.test_config import PAIR, SECRET, load, mistake, mistakes

pytestmark = pytest.mark.usefixtures("_alone")


@pytest.fixture
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of whoever runs the tests; and "config.toml" is where we are."""
    for name in os.environ:
        if name.upper().startswith("FAILOVER_AGENT_") or name == "DOCKER_HOST":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def told(**parts: str) -> str:
    return mistake(**parts).removeprefix("config.toml: ")


# --- values ---------------------------------------------------------------------------------------

HUGE = "1" + "0" * 400
NUMBERS = ("nan", "inf", "-inf", "-1", HUGE, "1e300", '"10"', '"10s"', "true", "[1]", "{ s = 1 }")
SECONDS = (
    "heartbeat_interval",
    "check_heartbeat_interval",
    "heartbeat_timeout",
    "startup_grace_period",
    "restart_grace_period",
    "failover_window",
    "failback_delay",
    "fence_timeout",
    "stop_budget",
    "kill_budget",
)


@pytest.mark.parametrize("value", [*NUMBERS, "2026-11-22", "07:30:00"])
@pytest.mark.parametrize("key", SECONDS)
def test_a_length_of_time_that_is_none(key: str, value: str) -> None:
    answers = mistakes(top=f"{key} = {value}")

    assert len(answers) == 1
    assert answers[0].startswith((f"config.toml: {key} (", f"config.toml: [{key}] ("))
    assert key in answers[0].partition(". ")[2] or " to " in answers[0].partition(". ")[2]


@pytest.mark.parametrize("value", [*NUMBERS, "1.5", "99999999999"])
@pytest.mark.parametrize("key", ["restart_attempts", "max_failovers"])
def test_a_count_that_is_none(key: str, value: str) -> None:
    (answer,) = mistakes(top=f"{key} = {value}")
    assert f"{key}" in answer


def test_no_table_and_no_text_stands_in_for_another_kind() -> None:
    """Each key with each kind of value that it has not: one answer, which names it."""
    for key, below in names().items():
        if below is not None:
            for value in ("5", '"x"', "[]", "[{}]", "true"):
                text = _without_table(key) if key in ("primary", "backup", "security") else None
                top = f"{key} = {value}"
                answers = mistakes(f"{top}\n{text}") if text else mistakes(top=top)
                assert f"{key} must be a table. " in str(answers)
                assert '"x"' not in str(answers), "it may be a secret"
            continue
        info = Keys.model_fields[key]
        assert table_of(info) is None
        (answer,) = mistakes(**_set(key, "{ a = 1 }"))
        assert f"[{key}]" in answer


def _without_table(name: str) -> str:
    lines = PAIR.format(top="", primary="", backup="", security=SECRET).split(f"[{name}]")
    return lines[0] + "[" + lines[1].partition("[")[2] if "[" in lines[1] else lines[0]


def _set(key: str, value: str) -> dict[str, str]:
    if key == "containers":
        text = PAIR.format(top="", primary="", backup="", security=SECRET)
        return {"text": text.replace('["db", "web"]', value)}
    return {"top": f"{key} = {value}"}


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (
            "check_heartbeat_interval = 1e-9",
            ("check_heartbeat_interval (1e-09) must be 0.1 or more: more often costs a processor "
            "and finds nothing sooner. Write check_heartbeat_interval = 1.0, for example."),
        ),
        (
            "startup_grace_period = 20000000",
            ("startup_grace_period (20000000) must be 86400 or less. It counts seconds: write "
            "startup_grace_period = 20.0, for example."),
        ),
        (
            "heartbeat_interval = 5000",
            ("heartbeat_interval (5000) must be 1800 or less. It counts seconds: write "
            "heartbeat_interval = 1.0, for example."),
        ),
        (
            "heartbeat_timeout = 10000",
            ("heartbeat_timeout (10000) must be 3600 or less. It counts seconds: write "
            "heartbeat_timeout = 10.0, for example."),
        ),
        (
            "restart_attempts = 5000",
            ("restart_attempts (5000) must be 1000 or less. "
            "Write restart_attempts = 3, for example."),
        ),
        (
            "stop_budget = 100000",
            ("stop_budget (100000) must be 86400 or less. It counts seconds: write "
            "stop_budget = 2.5, for example."),
        ),
        (
            "[docker]\nstop_timeout = 99999999999999",
            ("[docker] stop_timeout (99999999999999) must be 86400 or less. "
            "It counts seconds: write stop_timeout = 10, for example."),
        ),
        (
            '[log]\nlevel = "verbose"',
            ('[log] level ("verbose") must be "debug", "info", "warning" or "error". '
            'Write level = "info", for example.'),
        ),
        (
            '[log]\nlevel = "INFO"',
            ('[log] level ("INFO") must be "debug", "info", "warning" or "error". '
            'Did you mean "info"?'),
        ),
        ("[[log]]", ("log must be a table. Write [log] with one bracket on each side: with two it "
         "is a list.")),
        (
            'cluster = "shop/one"',
            ('cluster ("shop/one") is part of file names. Use 1 to 63 letters, digits, and after '
            "the first also _ . and -."),
        ),
    ],
)  # fmt: skip
def test_a_value_out_of_reach(line: str, answer: str) -> None:
    assert told(top=line) == answer


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        ('"db,web"', 'containers ("db,web") must be a list. Write containers = ["db", "web"].'),
        ('"db web"', 'containers ("db web") must be a list. Write containers = ["db", "web"].'),
        ('"db"', 'containers ("db") must be a list. Write containers = ["db"].'),
        ("3", 'containers (3) must be a list. Write containers = ["db", "web"].'),
        (
            '[["db"]]',
            'containers (["db"]) must be text. Write containers = ["db", "web"], for example.',
        ),
        ("[7, 8]", 'containers (7) must be text. Put it in double quotes: "7".'),
    ],
)
def test_containers_in_another_form(value: str, answer: str) -> None:
    text = PAIR.format(top="", primary="", backup="", security=SECRET)

    assert mistakes(text.replace('["db", "web"]', value))[0] == f"config.toml: {answer}"


@pytest.mark.parametrize(
    ("endpoint", "answer"),
    [
        ("http:/10.0.0.2:8000", 'has no scheme. Write "http://10.0.0.2:8000".'),
        (
            "http://10.0.0.2:1,http://10.1.0.2:1",
            'is more than one address. Write a list: ["http://10.0.0.2:1", "http://10.1.0.2:1"].',
        ),
        (
            "10.0.0.2:1,10.1.0.2:1",
            'is more than one address. Write a list: ["http://10.0.0.2:1", "http://10.1.0.2:1"].',
        ),
        (
            "http://10.0.0.300:8000",
            (
                'names "10.0.0.300", which is no host name and no IP address. Write it as '
                '"http://HOST:PORT".'
            ),
        ),
        (
            "http://10.0.0:8000",
            (
                'names "10.0.0", which is no host name and no IP address. Write it as '
                '"http://HOST:PORT".'
            ),
        ),
        (
            "http://a..b:8000",
            (
                'names "a..b", which is no host name and no IP address. Write it as '
                '"http://HOST:PORT".'
            ),
        ),
        (
            "http://224.0.0.1:8000",
            "is the address of many hosts. Write the address of the one that is meant.",
        ),
        (
            "http://255.255.255.255:8000",
            "is the address of many hosts. Write the address of the one that is meant.",
        ),
        (
            "http://[fe80::1]:8000",
            (
                "means something else on every wire (link-local). Give the hosts addresses of "
                "their own there, such as fd00::1 and fd00::2."
            ),
        ),
    ],
)
def test_an_endpoint_that_cannot_be_called(endpoint: str, answer: str) -> None:
    text = PAIR.format(top="", primary="", backup="", security=SECRET)

    assert mistake(text.replace("http://10.0.0.2:8000", endpoint)) == (
        f'config.toml: [primary] endpoint ("{endpoint}") {answer}'
    )


def test_a_password_in_an_endpoint_is_not_shown() -> None:
    text = PAIR.format(top="", primary="", backup="", security=SECRET)

    assert mistake(text.replace("http://10.0.0.2", "http://me:word@10.0.0.2")) == (
        'config.toml: [primary] endpoint ("http://...@10.0.0.2:8000") is more than an address. '
        'Write "http://10.0.0.2:8000" and no more.'
    )


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://me:hunter2@10.0.0.2:8000",
        "me:hunter2@10.0.0.2:8000",
        "ftp://me:hunter2@10.0.0.2:8000",
        "http://me:hun/ter2@10.0.0.2:8000",
        "http://me:hun ter2@10.0.0.2",
        "http://me:hun,ter2@10.0.0.2:8000/v1",
    ],
)
def test_nor_is_it_whatever_else_is_wrong_there(endpoint: str) -> None:
    text = PAIR.format(top="", primary="", backup="", security=SECRET)
    told = mistake(text.replace("http://10.0.0.2:8000", endpoint))

    assert "...@10.0.0.2" in told
    assert "hun" not in told
    assert "ter2" not in told


def test_an_endpoint_that_is_a_number() -> None:
    text = PAIR.format(top="", primary="", backup="", security=SECRET)

    assert mistake(text.replace('"http://10.0.0.2:8000"', "8000")) == (
        "config.toml: [primary] endpoint (8000) must be text, or a list of texts. "
        'Write endpoint = "http://10.0.0.2:8000", for example.'
    )


@pytest.mark.parametrize("host", ["a" * 64, "a." * 130 + "a", "-a", "a-", ".a", "hôst"])
def test_a_name_that_no_resolver_knows(host: str) -> None:
    text = PAIR.format(top="", primary="", backup="", security=SECRET)

    assert "which is no host name" in mistake(text.replace("10.0.0.2", host))


# --- unknown names --------------------------------------------------------------------------------


def test_a_letter_left_out_of_any_key_is_seen_at_every_level() -> None:
    for key, below in names().items():
        if below is None:
            assert f"Did you mean {key}?" in mistakes(top=f"{key[:-1]}_ = 1")[0]
            continue
        for inner in (name for name in below if name != "*"):
            if below[inner] is None:
                wrong = mistakes(**_in_table(key, f"{inner}x = 1"))
                assert f"] {inner}x is not a setting. Did you mean {inner}?" in str(wrong), wrong


def _in_table(table: str, line: str) -> dict[str, str]:
    if table in ("primary", "backup"):
        return {table: line}
    if table == "security":
        return {"security": f"{SECRET}\n{line}"}
    return {"top": f"[{table}]\n{line}"}


# --- the environment ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "answer"),
    [
        (
            "PRIMARY__PORT__X",
            "1",
            (
                "FAILOVER_AGENT_PRIMARY__PORT__X is not a setting. "
                "Did you mean FAILOVER_AGENT_PRIMARY__PORT?"
            ),
        ),
        (
            "SECURITY__SECRET__VALUE",
            "hunter2hunter2hunter2",
            (
                "FAILOVER_AGENT_SECURITY__SECRET__VALUE is not a setting. "
                "Did you mean FAILOVER_AGENT_SECURITY__SECRET?"
            ),
        ),
        (
            "HEARTBEAT_TIMEOUT__X",
            "1",
            (
                "FAILOVER_AGENT_HEARTBEAT_TIMEOUT__X is not a setting. "
                "Did you mean FAILOVER_AGENT_HEARTBEAT_TIMEOUT?"
            ),
        ),
        (
            "PRIMARY_PORT",
            "1",
            (
                "FAILOVER_AGENT_PRIMARY_PORT is not a setting. "
                "Did you mean FAILOVER_AGENT_PRIMARY__PORT?"
            ),
        ),
        (
            "PRIMARY",
            "http://10.0.0.2:8000",
            (
                "FAILOVER_AGENT_PRIMARY must be a table. Set a variable for each of its settings: "
                "FAILOVER_AGENT_PRIMARY__NAME=..."
            ),
        ),
        (
            "CONTAINERS",
            "",
            (
                "FAILOVER_AGENT_CONTAINERS names no container. Write those of the service in the "
                'order of their start: containers = ["db", "web"]. `docker ps -a` shows them.'
            ),
        ),
        (
            "LOG__LEVEL",
            "verbose",
            (
                'FAILOVER_AGENT_LOG__LEVEL ("verbose") must be "debug", "info", "warning" or '
                '"error". Write FAILOVER_AGENT_LOG__LEVEL=info, for example.'
            ),
        ),
        (
            "HEARTBEAT_TIMEOUT",
            "10s",
            (
                'FAILOVER_AGENT_HEARTBEAT_TIMEOUT ("10s") must be a number of seconds. '
                "Write FAILOVER_AGENT_HEARTBEAT_TIMEOUT=10.0, for example."
            ),
        ),
        (
            "PRIMARY__STATE_DIR",
            "state",
            (
                'FAILOVER_AGENT_PRIMARY__STATE_DIR ("state") depends on where the agent is '
                "started. Write the whole path, beginning with a slash."
            ),
        ),
    ],
)
def test_a_variable_that_cannot_be_meant(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, answer: str
) -> None:
    monkeypatch.setenv(f"FAILOVER_AGENT_{name}", text)

    assert mistakes() == [f"environment: {answer}"]


def test_a_mistake_in_a_variable_stays_one_where_the_file_says_nothing_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """PRIMARY__PORT__X was once taken for nothing at all."""
    monkeypatch.setenv("FAILOVER_AGENT_PRIMARY__PORT__X", "1")
    for primary in ("", "port = 8000"):
        assert "PORT__X is not a setting" in mistake(primary=primary)


def test_a_role_in_capital_letters() -> None:
    with pytest.raises(MistakesError) as caught:
        load(role="Primary")
    assert str(caught.value).startswith(
        '--role: "Primary" is not a role. Did you mean primary? It is primary on one host, '
    )


# --- files ----------------------------------------------------------------------------------------


def secret_in(content: bytes, mode: int = 0o600) -> Settings:
    path = Path("secret")
    path.write_bytes(content)
    path.chmod(mode)
    return load(security='secret_file = "secret"')


def test_blank_lines_around_a_secret_are_not_part_of_it() -> None:
    """Somebody opened it in an editor on one of the hosts."""
    alike = [b"sixteen letters!", b"sixteen letters!\n", b"\r\nsixteen letters! \r\n\n"]
    assert {secret_in(content).secret for content in alike} == {b"sixteen letters!"}
    inside = b"\x00\xff" * 20 + b"\n" + b"\x01" * 20
    assert secret_in(inside).secret == inside, "what is inside is, be it binary"


def test_a_secret_in_somebodys_home() -> None:
    assert told(security='secret_file = "~/secret"') == (
        "~/secret: there is no file with the secret. "
        "Nobody's home is meant by ~ here: write the whole path."
    )


def test_links_round_in_a_circle_to_the_secret() -> None:
    Path("one").symlink_to("one")
    assert told(security='secret_file = "one"').startswith(
        "one: the secret cannot be read (Too many levels of symbolic links; "
    )


@pytest.mark.parametrize("start", ["", "\n" * 1000, "\ufeff", "# nothing\r\n"])
def test_an_empty_file_names_all_that_is_needed(start: str) -> None:
    answers = mistakes(start)

    assert [answer.split(": ")[1].split(". ")[0] for answer in answers][:1] == [
        "containers is missing"
    ]
    assert len(answers) == 4, "containers, two endpoints, a secret"


def test_line_ends_of_another_system_are_fine() -> None:
    text = PAIR.format(top="", primary="", backup="", security=SECRET)
    assert load(text.replace("\n", "\r\n")).keys.containers == ("db", "web")


def test_every_mistake_is_a_usage_error_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is told has three parts, and ends like a sentence or with a line to type."""
    text = PAIR.format(top="", primary="", backup="", security=SECRET)
    for line in text.splitlines():
        path = Path("config.toml")
        path.write_text(text.replace(line, f"x{line}" if line else "y = 1", 1))
        with pytest.raises(MistakesError) as caught:
            config.load(path, "primary")
        assert caught.value.exit_code is ExitCode.USAGE
        for each in caught.value.mistakes:
            assert each.where
            assert each.what
            assert not each.what.endswith(".")
            assert each.todo
    shutil.rmtree(Path.cwd() / "state", ignore_errors=True)
    del monkeypatch
