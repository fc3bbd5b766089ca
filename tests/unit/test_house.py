"""The house: packaging, the systemd unit, and what no linter can say."""

import ast
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest

import failover_agent
from failover_agent.cli import run
from failover_agent.core.policy import Policy, Role

TOP = Path(__file__).resolve().parents[2]
SOURCE = TOP / "src" / "failover_agent"
UNITS = sorted((TOP / "deploy" / "systemd").glob("*.service"))


def test_the_installed_package_has_the_version_of_the_source() -> None:
    assert distribution("failover-agent").version == failover_agent.__version__


def test_the_command_is_installed() -> None:
    scripts = distribution("failover-agent").entry_points.select(group="console_scripts")

    assert {script.name: script.value for script in scripts} == {
        "failover-agent": "failover_agent.cli.main:main"
    }


def test_every_pinned_version_is_a_plain_one_and_covers_what_we_depend_on() -> None:
    pins = (TOP / "constraints.txt").read_text().splitlines()
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]

    assert [pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9.]+", pin)] == []
    pinned = {pin.partition("==")[0].lower().replace("_", "-") for pin in pins}
    assert {re.split(r"[\[<>=]", want)[0] for want in wanted} <= pinned


@pytest.mark.parametrize("unit_file", UNITS, ids=lambda unit: unit.name)
def test_a_systemd_unit_is_one_that_systemd_has_nothing_to_say_about(
    unit_file: Path, tmp_path: Path
) -> None:
    systemd_analyze = shutil.which("systemd-analyze")
    assert systemd_analyze, "systemd-analyze is missing: apt-get install systemd"
    unit = tmp_path / unit_file.name
    # The program must exist for the check; an unknown key is a line of output and no failure.
    text, replaced = re.subn(r"(?m)^(ExecStart=)\S+", rf"\1{sys.executable}", unit_file.read_text())
    unit.write_text(text)

    checked = subprocess.run(
        [systemd_analyze, "--man=no", "verify", str(unit)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )

    assert replaced == 1
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def _keys(name: str) -> dict[str, str]:
    lines = (TOP / "deploy" / "systemd" / name).read_text().splitlines()
    pairs = (line.partition("=") for line in lines if line[:1].isalpha() and "=" in line)
    return {key: value for key, _, value in pairs}


def test_the_unit_of_a_node_brings_its_guard_back_in_time_and_lets_it_kill() -> None:
    keys, usual = _keys("failover-agent.service"), Policy(role=Role.PRIMARY, containers=())
    watchdog_s = float(keys["WatchdogSec"].removesuffix("ms")) / 1000

    assert watchdog_s <= usual.stop_budget_s - usual.kill_budget_s
    wanted = {
        "Restart": "always",
        "RestartSec": "100ms",
        "RestartPreventExitStatus": "2",
        "StartLimitIntervalSec": "0",
        "WatchdogSignal": "SIGKILL",
        "NotifyAccess": "all",
        "KillMode": "mixed",
        "OOMPolicy": "continue",
        "RuntimeDirectoryPreserve": "yes",
        "ProtectControlGroups": "no",
    }
    assert {key: keys[key] for key in wanted} == wanted
    assert "CAP_KILL" in keys["CapabilityBoundingSet"].split()


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
@pytest.mark.parametrize(
    ("status", "waits"), [("1", "5\n"), ("0", ""), ("KILL", ""), (str(run.BROKE), "")]
)
def test_only_what_keeps_an_agent_from_starting_is_waited_for(
    unit: Path, status: str, waits: str, tmp_path: Path
) -> None:
    """A guard that died comes back at once: nobody watches over the lease meanwhile (G3)."""
    (tmp_path / "sleep").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "sleep").chmod(0o755)
    # As systemd reads it.
    command = [it.replace("$$", "$") for it in shlex.split(_keys(unit.name)["ExecStopPost"])]
    done = subprocess.run(
        command,
        env={"PATH": str(tmp_path), "EXIT_STATUS": status},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=30,
    )

    assert done.stdout == waits


def test_the_unit_of_a_witness_has_no_power_to_kill_and_no_engine() -> None:
    keys = _keys("failover-agent-witness.service")

    assert keys["ExecStart"].endswith("failover-agent run --role witness")
    assert "CAP_KILL" not in keys["CapabilityBoundingSet"]
    assert "docker" not in keys["After"] + keys["Wants"]


def test_core_guard_and_errors_import_the_standard_library_and_us_alone() -> None:
    allowed = sys.stdlib_module_names | {"failover_agent"}
    files = [*SOURCE.glob("core/**/*.py"), *SOURCE.glob("guard/**/*.py"), SOURCE / "errors.py"]

    assert [
        f"{file.relative_to(TOP)}: {module}"
        for file in files
        for module in _imported(file)
        if module.partition(".")[0] not in allowed
    ] == []


def test_no_file_names_a_package_index_or_a_path_of_one_machine() -> None:
    # Put together here, or this file would find itself.
    hosts = [rf"{name}\.{end}" for name, end in (("pypi", "org"), ("pythonhosted", "org"))]
    paths = [rf"(?<![\w.])/{top}/" for top in ("root", "work", "farm")]
    pattern = re.compile("|".join(hosts + paths))

    assert [
        f"{file.relative_to(TOP)}:{number}: {line.strip()}"
        for file, text in _tracked_texts()
        for number, line in enumerate(text.splitlines(), start=1)
        if pattern.search(line)
    ] == []


def _imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def _tracked_texts() -> Iterator[tuple[Path, str]]:
    """Every text file that git has or would take, even where the clone is another user's."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "-co", "--exclude-standard"],
        cwd=TOP,
        capture_output=True,
        check=True,
        timeout=30,
    )
    for name in listed.stdout.decode().split("\0"):
        file = TOP / name
        if name and file.is_file():
            content = file.read_bytes()
            if b"\0" not in content:
                yield file, content.decode()
