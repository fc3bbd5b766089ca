"""Newer engines than the machine's own: the packages of newer Debians, unpacked into a folder.

    engine_root("26.1")

Nothing of them is installed on the machine. A folder is made once a run of the tests, and it goes
with that run, as a lab does: 15 seconds, and the newest packages each time.
"""

import atexit
import contextlib
import functools
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.lab import ground
from tests.lab.host import Host
from tests.lab.process import PATH
from tests.lab.until import until

SUITES = {"26.1": "trixie", "28.5": "forky"}
"""Which Debian brings an engine of this release."""

PACKAGES = "docker.io,containerd,runc"
MOUNTED = "/run/engine-root"  # on a host
PID_FILE = f"{MOUNTED}/pid"
SHOWN = ("/proc", "/sys", "/dev", "/run", "/tmp", "/var/tmp", "/var/lib/docker", "/etc/docker")
"""Of the host, at the same place in the root: nothing but the programs is the root's own."""

LINKS = {
    "bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64", "var/run": "/run",
}  # fmt: skip
"""What a package makes that nothing here depends on."""

UNPACK_LIMIT_S = 600
HOLD_LIMIT_S = 60

HOLD = f"""\
set -eu
mkdir -p {MOUNTED}/root {MOUNTED}/upper {MOUNTED}/work
mkfifo {MOUNTED}/never
mount -t overlay -o "lowerdir=$1,upperdir={MOUNTED}/upper,workdir={MOUNTED}/work" \
    overlay {MOUNTED}/root
cd {MOUNTED}/root
for folder in {" ".join(SHOWN)}; do
    mkdir -p ".$folder"
    mount --rbind "$folder" ".$folder"
done
mkdir -p host
pivot_root . host
echo $$ >{PID_FILE}
read -r _ <{MOUNTED}/never
"""
"""Holds a mount namespace, which so outlives the engine, as containers may. Its root is truly the
engine's: in a mere chroot what is executed in a container would run outside, in the host's root.
"""

ENTER = f'exec nsenter -t "$(cat {PID_FILE})" --mount dockerd'


@functools.cache
def engine_root(release: str) -> Path:
    """A folder with dockerd of this release and all that it needs. Raises RuntimeError."""
    mmdebstrap = shutil.which("mmdebstrap", path=PATH)
    if mmdebstrap is None:
        raise RuntimeError("not installed: mmdebstrap. Run scripts/install-packages")
    undo = contextlib.ExitStack()
    folder = ground.claim(undo) / "root"
    atexit.register(undo.close)
    done = subprocess.run(
        [
            *(mmdebstrap, "--quiet", "--variant=extract", f"--include={PACKAGES}"),
            # A mirror that lags behind still has what is wanted here, signed as ever.
            '--aptopt=Acquire::Check-Valid-Until "false"',
            *(f"--dpkgopt=path-exclude=/usr/share/{it}/*" for it in ("doc", "man", "locale")),
            *(SUITES[release], folder, next(_mirrors())),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=UNPACK_LIMIT_S,
    )
    if done.returncode != 0:
        raise RuntimeError(f"no engine {release} from Debian {SUITES[release]}: {done.stderr}")
    for name, target in LINKS.items():
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(target)
    return folder


def dockerd(host: Host, release: str) -> list[str | Path]:
    """The command line of this release's dockerd on this host, which has been made ready for it."""
    pid_file = host.path(PID_FILE)
    if not pid_file.exists():
        root = engine_root(release)
        host.spawn("engine-root", ["unshare", "--mount", "sh", "-c", HOLD, "sh", root])
        until(
            lambda: pid_file.exists() and pid_file.read_text(), HOLD_LIMIT_S, "a root for dockerd"
        )
    return ["sh", "-c", ENTER]


def _mirrors() -> Iterator[str]:
    """Where this machine has its Debian from: by its own sources of apt."""
    for file in sorted(Path("/etc/apt").rglob("*.sources")) + sorted(
        Path("/etc/apt").rglob("*.list")
    ):
        for line in file.read_text().splitlines():
            found = re.match(r"(?:URIs:|deb (?:\[.*?\] )?)\s*(\S+/debian)/?(?:\s|$)", line)
            if found is not None:
                yield found[1]
    raise RuntimeError("apt has no source of Debian here: newer engines cannot be tried")
