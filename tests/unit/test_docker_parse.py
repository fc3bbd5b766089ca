"""adapters/docker/parse.py, on the words of a real engine (tests/recorded)."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from failover_agent.adapters.docker.parse import (
    ACTIONS,
    ContainerEvent,
    missing,
    parse_event,
    parse_inspect,
    settings_digest,
)
from failover_agent.core.state import ContainerState

RECORDED = Path(__file__).parents[1] / "recorded" / "engine-20.10"
UP, DOWN = ContainerState.UP, ContainerState.DOWN


def inspected(state: str) -> dict[str, Any]:
    said: dict[str, Any] = json.loads((RECORDED / f"inspect-{state}.json").read_text())
    return said


def events(happening: str) -> list[ContainerEvent]:
    lines = (RECORDED / f"events-{happening}.jsonl").read_text().splitlines()
    parsed = [parse_event(json.loads(line)) for line in lines]
    return [event for event in parsed if event is not None and event.action in ACTIONS]


def actions(happening: str) -> list[str]:
    return [event.action for event in events(happening)]


@pytest.mark.parametrize(
    ("recorded", "state", "alive", "detail"),
    [
        ("running", UP, True, "running"),
        ("health-healthy", UP, True, "running (healthy)"),
        ("health-starting", UP, True, "running (health: starting)"),
        ("health-unhealthy", DOWN, True, "running (unhealthy)"),
        ("paused", DOWN, True, "paused"),
        ("restarting", DOWN, True, "restarting (3)"),
        ("created", DOWN, False, "created"),
        ("exited-0", DOWN, False, "exited (0)"),
        ("exited-3", DOWN, False, "exited (3)"),
        ("exited-137", DOWN, False, "exited (137)"),
    ],
)
def test_the_rule_for_up_and_down(
    recorded: str, state: ContainerState, alive: bool, detail: str
) -> None:
    seen = parse_inspect("web", inspected(recorded)).observation

    assert (seen.state, seen.alive, seen.detail) == (state, alive, detail)
    assert (seen.name, seen.exists) == ("web", True)


def test_a_kill_by_the_kernel_for_its_memory_is_told() -> None:
    said = inspected("oom-killed")
    said["State"]["OOMKilled"] = True  # the engine misses it now and then: a race of its own

    seen = parse_inspect("web", said).observation

    assert (seen.state, seen.detail) == (DOWN, "exited (137), OOM killed")


def test_a_failed_start_is_told_in_the_engines_words() -> None:
    seen = parse_inspect("web", inspected("start-failed"))

    assert (seen.observation.state, seen.observation.alive) == (DOWN, False)
    assert seen.observation.detail.startswith("created, start failed: failed to create shim task")
    assert seen.exit_code == 127


@pytest.mark.parametrize("status", ["removing", "dead"])
def test_what_is_being_removed_is_down_and_has_no_process(status: str) -> None:
    said = inspected("exited-137")
    said["State"] |= {"Status": status, "Dead": status == "dead"}

    seen = parse_inspect("web", said).observation

    assert (seen.state, seen.alive, seen.exists) == (DOWN, False, True)


def test_a_missing_container_is_down_and_says_whether_it_was_ever_there() -> None:
    assert missing("web").observation.detail == "no such container"
    gone = missing("web", was_here=True).observation
    assert (gone.state, gone.exists, gone.alive, gone.detail) == (DOWN, False, False, "removed")


def test_only_a_running_container_that_is_not_unproven_serves() -> None:
    serving = ["running", "health-healthy"]
    states = [*serving, "health-starting", "health-unhealthy", "paused", "restarting", "exited-0"]

    assert [
        state for state in states if parse_inspect("web", inspected(state)).is_serving
    ] == serving


def test_a_container_without_a_check_has_no_health() -> None:
    said = inspected("running")
    said["State"]["Health"] = {"Status": "none", "FailingStreak": 0, "Log": None}

    assert parse_inspect("web", said).health == ""
    assert parse_inspect("web", inspected("health-starting")).health == "starting"


def test_an_incarnation_is_this_container_since_this_start() -> None:
    said = inspected("running")
    again, recreated = copy.deepcopy(said), copy.deepcopy(said)
    again["State"]["StartedAt"] = "2026-11-22T11:42:30.294368432Z"  # a nanosecond later
    recreated["Id"] = "f" * 64

    seen = [parse_inspect("web", it).observation.incarnation for it in (said, again, recreated)]

    assert len(set(seen)) == 3


@pytest.mark.parametrize(
    ("told", "policy"),
    [("", "no"), ("no", "no"), ("always", "always"), ("unless-stopped", "unless-stopped")],
)
def test_an_unnamed_restart_policy_is_no(told: str, policy: str) -> None:
    said = inspected("running")
    said["HostConfig"]["RestartPolicy"]["Name"] = told

    assert parse_inspect("web", said).observation.restart_policy == policy


@pytest.mark.parametrize(("told", "allowed_s"), [(None, 10), (0, 0), (30, 30), (-1, None)])
def test_the_time_a_container_may_take_to_stop(told: int | None, allowed_s: float | None) -> None:
    said = inspected("running")
    said["Config"]["StopTimeout"] = told

    assert parse_inspect("web", said).stop_timeout_s == allowed_s


def test_moments_of_inspections_and_of_events_can_be_compared() -> None:
    [died] = [event for event in events("oom") if event.action == "die"]
    seen = parse_inspect("web", inspected("exited-3"))

    assert 0 < seen.started_at_us < died.at_us
    assert parse_inspect("web", inspected("created")).started_at_us == 0


# -- settings -----------------------------------------------------------------------------------


def test_settings_do_not_change_while_a_container_lives() -> None:
    """These were made by the same line, but for the restart policy of one."""
    lived = ["running", "paused", "health-starting", "health-healthy", "health-unhealthy"]
    digests = {state: settings_digest(inspected(state)) for state in lived}

    assert digests["running"] == digests["paused"]
    assert digests["running"] != digests["health-healthy"]


def test_settings_are_the_same_on_two_engines() -> None:
    one = inspected("running")
    one["Config"]["Env"] = ["A=1", "B=2"]
    one["HostConfig"] |= {"NetworkMode": "default", "CapAdd": ["CAP_NET_ADMIN"]}
    one["Mounts"] = [
        mount("volume", "data", "/var/lib/docker/volumes/data/_data", "/data"),
        mount("volume", "ab" * 32, f"/var/lib/docker/volumes/{'ab' * 32}/_data", "/cache"),
    ]
    other = copy.deepcopy(one)
    other["Id"] = "f" * 64
    other["Config"] |= {"Hostname": "f" * 12, "Env": ["B=2", "A=1"], "Labels": {"made": "today"}}
    other["Config"]["Volumes"] = {}
    other["HostConfig"] |= {
        "NetworkMode": "bridge", "CapAdd": ["NET_ADMIN"], "CapDrop": [], "Devices": [],
        "CgroupnsMode": "private", "LogConfig": {"Type": "local"}, "Runtime": "other",
    }  # fmt: skip
    other["Mounts"] = [
        mount("volume", "cd" * 32, f"/srv/docker/volumes/{'cd' * 32}/_data", "/cache"),
        mount("volume", "data", "/srv/docker/volumes/data/_data", "/data"),
    ]

    assert settings_digest(one) == settings_digest(other)


@pytest.mark.parametrize(
    ("part", "changed"),
    [
        ("Config", {"Cmd": ["sleep", "1"]}),
        ("Config", {"Entrypoint": ["/run"]}),
        ("Config", {"Env": ["A=2"]}),
        ("Config", {"User": "www"}),
        ("Config", {"StopTimeout": 30}),
        ("HostConfig", {"NetworkMode": "shop"}),
        ("HostConfig", {"PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "80"}]}}),
        ("HostConfig", {"Privileged": True}),
        ("HostConfig", {"Memory": 1 << 24}),
    ],
)
def test_settings_differ_where_containers_do(part: str, changed: dict[str, Any]) -> None:
    said = inspected("running")
    other = copy.deepcopy(said)
    other[part] |= changed

    assert settings_digest(said) != settings_digest(other)


def test_another_mounted_folder_is_another_setting() -> None:
    said, other = inspected("running"), inspected("running")
    said["Mounts"] = [mount("bind", "", "/srv/a", "/data")]
    other["Mounts"] = [mount("bind", "", "/srv/b", "/data")]

    assert settings_digest(said) != settings_digest(other)


def mount(kind: str, name: str, source: str, destination: str) -> dict[str, Any]:
    return {
        "Type": kind, "Name": name, "Source": source, "Destination": destination, "RW": True,
    }  # fmt: skip


# -- events -------------------------------------------------------------------------------------


def test_what_each_happening_lets_hear() -> None:
    assert actions("run") == ["create", "start"]
    assert actions("restart") == ["die", "stop", "start"]
    assert actions("stop-ignored") == ["die", "stop"]
    assert actions("kill-hup") == [], "a signal is not a death"
    assert actions("start-failed") == ["create", "destroy"], "a failed start has no event"
    assert actions("rm-force") == ["die", "destroy"]
    assert actions("health")[-4:] == ["health_status"] * 4


def test_a_death_tells_its_exit_code_and_its_moment() -> None:
    [died] = [event for event in events("exit-3") if event.action == "die"]
    [line] = [
        said
        for said in map(json.loads, (RECORDED / "events-exit-3.jsonl").read_text().splitlines())
        if said["Action"] == "die"
    ]

    assert (died.name, died.exit_code) == (line["Actor"]["Attributes"]["name"], 3)
    assert died.at_us == line["timeNano"] // 1000


def test_a_recreate_gives_the_name_to_another_id() -> None:
    heard = events("recreate")
    [renamed] = [event for event in heard if event.action == "rename"]
    [died] = [event for event in heard if event.action == "die"]

    assert (renamed.old_name, renamed.name, died.name) == ("0123456789ab_web", "web", "web")
    assert renamed.container_id != died.container_id


def test_an_event_of_engine_29_has_no_old_fields() -> None:
    line = (RECORDED / "events-kill.jsonl").read_text().splitlines()
    said = next(it for it in map(json.loads, line) if it.get("Action") == "die")
    trimmed = {key: said[key] for key in ("Type", "Action", "Actor", "timeNano")}

    assert parse_event(trimmed) == parse_event(said)


def test_events_of_networks_are_none_of_ours() -> None:
    lines = (RECORDED / "events-run.jsonl").read_text().splitlines()
    said = [json.loads(line) for line in lines]

    assert {it["Type"] for it in said} == {"container", "network"}
    assert [parse_event(it) for it in said if it["Type"] == "network"] == [None]
