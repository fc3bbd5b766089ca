"""Writes engine-29-documented: what Engine 28.5 said, with what API 1.52 is documented to change.

    python -m tests.recorded.document

No engine of that release was to be had when this was written. The README beside this file names the
source; every change below is a line of it.
"""

import json
import shutil
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FROM, TO = HERE / "engine-28.5", HERE / "engine-29-documented"

NOT_IN_EVENTS = ("status", "id", "from")
NOT_IN_NETWORK_SETTINGS = (
    "Bridge", "HairpinMode", "LinkLocalIPv6Address", "LinkLocalIPv6PrefixLen",
    "SecondaryIPAddresses", "SecondaryIPv6Addresses", "EndpointID", "Gateway", "GlobalIPv6Address",
    "GlobalIPv6PrefixLen", "IPAddress", "IPPrefixLen", "IPv6Gateway", "MacAddress",
)  # fmt: skip


def event(said: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in said.items() if key not in NOT_IN_EVENTS}


def inspection(said: dict[str, Any]) -> dict[str, Any]:
    said["HostConfig"].pop("KernelMemoryTCP", None)
    if not said["Config"].get("OnBuild"):
        said["Config"].pop("OnBuild", None)
    for key in NOT_IN_NETWORK_SETTINGS:
        said["NetworkSettings"].pop(key, None)
    return said


def row(said: dict[str, Any]) -> dict[str, Any]:
    """Of the list of containers."""
    words = ("healthy", "unhealthy", "health: starting")
    found = [word for word in words if f"({word})" in said["Status"]]
    status = found[0].removeprefix("health: ") if found else "none"
    return {**said, "Health": {"Status": status, "FailingStreak": 0}}


def version(said: dict[str, Any]) -> dict[str, Any]:
    return {**said, "Version": "29.0.0", "ApiVersion": "1.52", "MinAPIVersion": "1.44"}


def write(file: str, value: object) -> None:
    (TO / file).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def main() -> None:
    shutil.rmtree(TO, ignore_errors=True)
    TO.mkdir()
    for file in sorted(FROM.glob("events-*.jsonl")):
        lines = [json.dumps(event(json.loads(line))) for line in file.read_text().splitlines()]
        (TO / file.name).write_text("\n".join([*lines, ""]))
    for file in sorted(FROM.glob("inspect-*.json")):
        write(file.name, inspection(json.loads(file.read_text())))
    listed = json.loads((FROM / "containers.json").read_text())
    write("containers.json", [row(each) for each in listed])
    write("version.json", version(json.loads((FROM / "version.json").read_text())))


if __name__ == "__main__":
    main()
