"""docs/states.md says what core/transitions.py does."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from failover_agent.core.transitions import EDGES

TOP = Path(__file__).resolve().parents[3]
SCRIPT = TOP / "scripts" / "generate_docs.py"
STATES = TOP / "docs" / "states.md"


def test_the_generated_parts_are_as_the_table_has_them() -> None:
    checked = subprocess.run(
        [sys.executable, str(SCRIPT), "--check"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )

    assert (checked.returncode, checked.stdout) == (0, "")


@pytest.mark.parametrize("edge", EDGES, ids=" ".join)
def test_every_edge_is_in_the_diagram(edge: tuple[str, str]) -> None:
    assert f"    {edge[0]} --> {edge[1]}: " in STATES.read_text()


def test_every_phase_that_a_node_can_be_in_has_its_guarantee() -> None:
    told = re.findall(r"(?m)^### (\w+)$", STATES.read_text())

    assert sorted(told) == sorted({phase for edge in EDGES for phase in edge})


def test_a_drift_is_found_and_mended(tmp_path: Path) -> None:
    """On a copy, so that a test never writes to docs/."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "docs").mkdir()
    script = tmp_path / "scripts" / SCRIPT.name
    script.write_text(SCRIPT.read_text())
    states = tmp_path / "docs" / STATES.name
    states.write_text(STATES.read_text().replace("standby --> acquiring", "standby --> active"))

    codes = [
        subprocess.run(
            [sys.executable, str(script), flag], check=False, timeout=30, capture_output=True
        ).returncode
        for flag in ("--check", "--write", "--check")
    ]

    assert codes == [1, 0, 0]
    assert states.read_text() == STATES.read_text()
