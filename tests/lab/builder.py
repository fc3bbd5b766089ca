"""Builds the product's image from its own Dockerfile, with an engine that is there for that alone.

No registry is asked for the base: a Debian with its Python stands in for `python:3.13-slim`, under
that name. What this machine needs to reach its package index (a certificate authority of its own)
goes into that base, and the Dockerfile stays what users get.
"""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.lab import cgroups, engine_api, ground
from tests.lab.debian import make_root
from tests.lab.process import service_environment
from tests.lab.until import until

PRODUCT = Path(__file__).parents[2]
IMAGE = "failover-agent:latest"  # as compose.yaml names it
BASE = "python:3.13-slim"
PACKAGES = ("ca-certificates", "netbase", "python3", "python3-venv", "tzdata")
# The official image has its Python in /usr/local, with pip; a virtual environment there is alike.
HOOKS = (
    'mkdir -p "$1/usr/local/share/ca-certificates"',
    'cp /usr/local/share/ca-certificates/*.crt "$1/usr/local/share/ca-certificates/" || true',
    'chroot "$1" update-ca-certificates >/dev/null',
    'printf "[global]\\ncert = /etc/ssl/certs/ca-certificates.crt\\n" >"$1/etc/pip.conf"',
    'chroot "$1" python3 -m venv /usr/local',
)
BASE_CONFIG = ("CMD python3", "ENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
# A network of its own would lead nowhere: it stands in the machine's, and leaves that as it is.
# When this process dies, unshare does, and with it all that it has started.
APART = "setpriv --pdeathsig KILL unshare --mount --pid --fork --mount-proc --kill-child=KILL"
ENGINE = """
mount -t tmpfs -o mode=755 tmpfs /run
mkdir "$0/etc" "$0/etc.work"
mount -t overlay -o "lowerdir=/etc,upperdir=$0/etc,workdir=$0/etc.work" overlay /etc
rm -rf /etc/docker
exec dockerd --data-root "$0/data" --exec-root "$0/run" --pidfile "$0/pid" \
    --host "unix://$0/docker.sock" --cgroup-parent "$1" --exec-opt native.cgroupdriver=cgroupfs \
    --iptables=false --ip6tables=false --bridge=none --log-level warn
"""


def build_image(target: Path) -> None:
    """The image in a tar, as `docker load` wants it. Takes a minute: most of that for the base."""
    with contextlib.ExitStack() as undo:
        folder = ground.claim(undo)
        base = folder / "base.tar"
        make_root("trixie", PACKAGES, base, hooks=HOOKS)
        with _engine(folder) as docker:
            changes = [f"--change={line}" for line in BASE_CONFIG]
            docker("import", *changes, str(base), BASE)
            docker("build", "--network=host", "--tag", IMAGE, str(PRODUCT))
            docker("save", "--output", str(target), IMAGE)


class _Docker:
    """The docker command line, speaking to this engine."""

    def __init__(self, engine_socket: Path) -> None:
        self._environment = {
            "DOCKER_HOST": f"unix://{engine_socket}",
            "DOCKER_BUILDKIT": "0",
            "DOCKER_CONFIG": str(engine_socket.parent / "config"),
        }

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run(
            ["docker", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=service_environment(self._environment),
            timeout=400,
            check=False,
        )
        if done.returncode != 0:
            said = f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
            raise RuntimeError(f"docker {arguments[0]}: exit {done.returncode}: {said}")
        return done.stdout


@contextlib.contextmanager
def _engine(folder: Path) -> Iterator[_Docker]:
    """A dockerd in this folder of a lab; gone at the end, with all that it has started."""
    engine_socket, log = folder / "docker.sock", folder / "dockerd.log"
    group = f"{folder.name}/build"
    with log.open("wb") as output:
        unshare = subprocess.Popen(
            [*APART.split(), "sh", "-c", ENGINE, folder, f"/{group}"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=service_environment(),
            start_new_session=True,
        )
    ground.record(folder, unshare.pid)

    def is_up() -> bool:
        assert unshare.poll() is None, f"no engine to build with: {log.read_text()[-2000:]}"
        try:
            return engine_api.call(engine_socket, "GET", "/_ping", timeout_s=1).status == 200
        except OSError:
            return False

    try:
        until(is_up, 60, "the engine to build with answers")
        yield _Docker(engine_socket)
    finally:
        unshare.kill()
        unshare.wait(10)
        until(lambda: cgroups.remove(group), 30, "its control groups removed")


if __name__ == "__main__":
    build_image(Path(sys.argv[1]))
