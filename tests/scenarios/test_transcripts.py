"""Each story has a transcript that a person can read: the golden file of its name.

A test fails when the transcript has changed. Run `pytest tests/scenarios --rewrite-transcripts`,
and read the diff as what it is: another behaviour of the core.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenarios.stories import STORIES, told

TRANSCRIPTS = Path(__file__).parent / "transcripts"


@pytest.mark.parametrize("name", STORIES)
def test_the_transcript_is_as_it_was(name: str, rewrite: bool) -> None:
    golden = TRANSCRIPTS / f"{name}.txt"
    transcript = told(name)
    if rewrite:
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(transcript)

    assert golden.exists(), f"new: read {golden.name} after pytest --rewrite-transcripts"
    assert transcript.splitlines() == golden.read_text().splitlines()


def test_no_transcript_is_left_of_a_story_that_is_told_no_more() -> None:
    assert {golden.stem for golden in TRANSCRIPTS.iterdir()} == set(STORIES)
