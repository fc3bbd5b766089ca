"""What a newcomer runs first, as `make demo` and `make demo WITNESS=1` run it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("settings", "disasters"),
    [
        ({}, ["container failure", "host crash"]),
        ({"WITNESS": "1"}, ["container failure", "host crash", "cut wire"]),
    ],
    ids=["plain pair", "with a witness"],
)
def test_the_demonstration(settings: dict[str, str], disasters: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "scripts/demo.py"],
        cwd=ROOT,
        env={**os.environ, "KEEP": "", "WITNESS": "", **settings, "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    away = re.findall(r"^  (.+): web was away for [0-9.]+ s$", done.stdout, re.MULTILINE)
    at_once = re.findall(r"at once: (.*)$", done.stdout, re.MULTILINE)
    assert away == disasters
    assert at_once == ["0"] * len(disasters)
    assert "shop: ACTIVE on this node (primary), term 1," in done.stdout
    assert "term 3  promoting -> active  (peer_silent)" in done.stdout
    assert "term 4" not in done.stdout
    assert ("ACTIVE on the primary, term 3, but SILENT" in done.stdout) == ("cut wire" in disasters)
