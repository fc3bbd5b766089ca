"""A Debian of any suite, by mmdebstrap from the mirror that this machine uses, in 15 to 40 s.

    make_root("trixie", ["docker.io"], folder / "engine")
    make_root("trixie", ["python3"], folder / "base.tar", hooks=['chroot "$1" useradd me'])

A folder or a tar, as the name says.
"""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.lab.process import PATH, service_environment

LIMIT_S = 400
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")


def make_root(
    suite: str, packages: Sequence[str], target: Path, *, hooks: Sequence[str] = ()
) -> None:
    """A minimal Debian with these packages and what they need, at `target`.

    `target` is a folder that does not exist yet, or a file whose name ends in `.tar`. `hooks` are
    run by a shell at the end; `$1` is the root then. Nothing of the machine's own goes in, and
    nothing of it is started. Raises RuntimeError with mmdebstrap's words, and leaves nothing.
    """
    if shutil.which("mmdebstrap", path=PATH) is None:
        raise RuntimeError("not installed: mmdebstrap. Run scripts/install-packages")
    command = [
        *("mmdebstrap", "--quiet", "--mode=root", "--variant=minbase"),
        # A mirror that lags behind is good enough for a test.
        "--aptopt=Acquire::Check-Valid-Until false",
        f"--include={','.join(packages)}",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT),
        *(f"--customize-hook={hook}" for hook in hooks),
        '--customize-hook=rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*.bin',
        *(suite, str(target), *_mirror()),
    ]
    made = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=service_environment(),
        timeout=LIMIT_S,
        check=False,
    )
    if made.returncode != 0:
        if target.is_dir():
            shutil.rmtree(target)
        target.unlink(missing_ok=True)
        raise RuntimeError(f"no root of {suite} by mmdebstrap: {made.stderr.strip()}")


def _mirror() -> list[str]:
    """The one that this machine uses itself; else the choice is left to mmdebstrap."""
    sources = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        env=service_environment(),
        check=False,
    )
    rows = [line.split() for line in sources.stdout.splitlines()]
    return [row[1] for row in rows if row[:1] == ["Debian"]][:1]
