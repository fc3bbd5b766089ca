"""PID 1 of a lab host: makes the namespaces it was born into look like a machine of their own.

    unshare --net --uts --mount --pid --fork --mount-proc python3 -I -S init.py DISK NAME

DISK is a folder that plays the host's disk: what is written below /etc, /opt and /var/lib goes
there and outlives a reboot, while the machine's own files show through, unchanged. /run is new at
each boot. Prints `up` when done; ends, and the whole host with it, when its standard input ends,
unless it was told to `stay`.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

# The engine keeps its key below /etc and its containerd makes a folder below /opt. A key of the
# machine's own engine must not show through: two engines with one key are one to whoever asks.
OVERLAID = ("/etc", "/opt", "/var/lib")
BOOT_ID = "/proc/sys/kernel/random/boot_id"


def mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True)


def set_up(disk: Path, name: str) -> None:
    socket.sethostname(name)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for folder in OVERLAID:
        upper, work = (disk / kind / folder.strip("/") for kind in ("files", "work"))
        upper.mkdir(parents=True, exist_ok=True)
        work.mkdir(parents=True, exist_ok=True)
        layers = f"lowerdir={folder},upperdir={upper},workdir={work}"
        mount("-t", "overlay", "-o", layers, "overlay", folder)
    if not (disk / "files/etc/hostname").exists():  # its first boot
        shutil.rmtree("/etc/docker", ignore_errors=True)
    Path("/etc/hostname").write_text(f"{name}\n")
    # The engine's own overlays cannot stand on one: its data lies on the disk itself.
    engine_data = Path("/var/lib/docker")
    engine_data.mkdir(exist_ok=True)
    mount("--bind", disk / "docker", engine_data)
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    Path("/run/lock").mkdir()
    mount("--bind", disk / "boot_id", BOOT_ID)


def reap(_signal: int, _frame: object) -> None:
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        pass


def main() -> None:
    set_up(Path(sys.argv[1]), sys.argv[2])
    signal.signal(signal.SIGCHLD, reap)
    sys.stdout.write("up\n")
    sys.stdout.flush()
    if sys.stdin.readline() == "stay\n":
        while True:
            signal.pause()


if __name__ == "__main__":
    main()
