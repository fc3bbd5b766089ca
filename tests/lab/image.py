"""The one image of the lab, as a tar for `docker load`: a static busybox and service.sh.

Loaded and not imported: an import stamps its moment into the image, and the agents rightly take two
imports for two images.
"""

import functools
import hashlib
import io
import json
import platform
import shutil
import subprocess
import tarfile
from pathlib import Path

from tests.lab.process import PATH

IMAGE = "lab:1"
SERVICE = Path(__file__).with_name("service.sh")
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@functools.cache
def image_tar() -> bytes:
    """The image with its one layer; the same id on every engine. About 2 MB."""
    layer = _layer()
    digest = hashlib.sha256(layer).hexdigest()
    config = {
        "architecture": ARCHITECTURES[platform.machine()],
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {"Cmd": ["service"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in (
            ("layer.tar", layer),
            ("config.json", json.dumps(config).encode()),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            _add(tar, name, content)
    return buffer.getvalue()


def _layer() -> bytes:
    """A root file system: /bin/busybox, a link per applet, /bin/service."""
    busybox = shutil.which("busybox", path=PATH)
    assert busybox is not None
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder in ("bin", "etc", "proc", "sys", "dev", "tmp"):
            tar.addfile(_entry(folder, tarfile.DIRTYPE))
        for file, content in (("bin/busybox", Path(busybox)), ("bin/service", SERVICE)):
            _add(tar, file, content.read_bytes())
        for applet in applets.stdout.split():
            if applet != "busybox":
                entry = _entry(f"bin/{applet}", tarfile.SYMTYPE)
                entry.linkname = "/bin/busybox"
                tar.addfile(entry)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = _entry(name, tarfile.REGTYPE)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def _entry(name: str, kind: bytes) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type = kind
    entry.mode = 0o755
    return entry
