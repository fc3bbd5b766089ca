"""How the kernel names a container in /proc/PID/cgroup, under each set-up that people have.

adapters/docker/processes.py asks whether a process is the container's, guard/kill.py where its
control groups are. The hybrid lines are what the lab shows; those of v2 are as runc, crun and their
drivers name the groups of Docker and Podman, with root and without.
"""

from pathlib import Path

import pytest

from failover_agent.adapters.docker import processes
from failover_agent.guard import kill
from failover_agent.guard.watch import Target

ID, OTHER = "ab" * 32, "cd" * 32
PID, STARTED = 4711, "99"

V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
HYBRID = (
    "31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n"
    "33 30 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "34 30 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "35 30 0:31 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n"
)
USER = "/user.slice/user-1000.slice/user@1000.service"

SET_UPS = {
    "v2, systemd": (V2, f"0::/system.slice/docker-{ID}.scope", f"system.slice/docker-{ID}.scope"),
    "v2, systemd in the container": (
        V2,
        f"0::/system.slice/docker-{ID}.scope/init.scope",
        f"system.slice/docker-{ID}.scope",
    ),
    "v2, cgroupfs": (V2, f"0::/docker/{ID}", f"docker/{ID}"),
    "v2, a parent of its own": (
        V2,
        f"0::/shop.slice/docker-{ID}.scope",
        f"shop.slice/docker-{ID}.scope",
    ),
    "v2, rootless": (
        V2,
        f"0::{USER}/user.slice/docker-{ID}.scope",
        f"{USER[1:]}/user.slice/docker-{ID}.scope",
    ),
    "v2, podman": (
        V2,
        f"0::/machine.slice/libpod-{ID}.scope/container",
        f"machine.slice/libpod-{ID}.scope",
    ),
    "v2, a process group of the engine's making": (
        V2,
        f"0::/docker/{ID}/workers",
        f"docker/{ID}",
    ),
    "hybrid, cgroupfs": (
        HYBRID,
        f"12:memory:/docker/{ID}\n4:cpu,cpuacct:/docker/{ID}\n1:name=systemd:/docker/{ID}\n0::/",
        f"memory/docker/{ID}",
    ),
    "hybrid, systemd": (
        HYBRID,
        f"12:memory:/system.slice/docker-{ID}.scope\n0::/system.slice/docker-{ID}.scope",
        f"unified/system.slice/docker-{ID}.scope",
    ),
}  # fmt: skip


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / str(PID)).mkdir()
    (tmp_path / "self").mkdir()
    fields = ["S", "1", *["0"] * 17, STARTED, "0"]
    (tmp_path / str(PID) / "stat").write_text(f"{PID} (a name) of 2) {' '.join(fields)}\n")
    return tmp_path


@pytest.mark.parametrize("set_up", SET_UPS)
def test_a_process_is_the_containers_and_its_group_is_found(
    proc: Path, set_up: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts, lines, folder = SET_UPS[set_up]
    (proc / str(PID) / "cgroup").write_text(f"{lines}\n")
    (proc / "self" / "mountinfo").write_text(mounts)
    monkeypatch.setattr(kill, "PROC", str(proc))

    found = processes.find(PID, ID, proc)
    assert found is not None
    assert (found.started, processes.is_alive(found)) == (STARTED, True)
    assert processes.find(PID, OTHER, proc) is None
    assert [it.folder.name for it in processes.of_container(ID, proc)] == [str(PID)]
    located = kill.locate(Target("db", ID, PID, STARTED))
    assert f"/sys/fs/cgroup/{folder}" in located.folders
    assert all(ID in each.rpartition("/")[2] for each in located.folders)
    assert kill.locate(Target("db", OTHER, PID, STARTED)).folders == ()


@pytest.mark.parametrize(
    ("mounts", "lines"),
    [
        # An agent in a container with a control group namespace of its own sees others' from below.
        (V2, f"0::/../docker-{ID}.scope"),
        # Only a part of the hierarchy is mounted, and the container is elsewhere.
        ("30 23 0:26 /docker /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n", f"0::/system.slice/{ID}"),
    ],
)
def test_what_lies_outside_what_we_see_is_known_and_has_no_folder(
    proc: Path, mounts: str, lines: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (proc / str(PID) / "cgroup").write_text(f"{lines}\n")
    (proc / "self" / "mountinfo").write_text(mounts)
    monkeypatch.setattr(kill, "PROC", str(proc))

    assert processes.find(PID, ID, proc) is not None
    assert kill.locate(Target("db", ID, PID, STARTED)).folders == ()
