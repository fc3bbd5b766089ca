"""The judge is judged first: what Truth makes of ticks that are known."""

from pathlib import Path

import pytest

from tests.lab.truth import CLOCK_STEP_S, HOLE_S, Truth, now_s


def write(folder: Path, place: str, *lines: str) -> None:
    ticks = folder / place / "ticks"
    ticks.parent.mkdir(parents=True, exist_ok=True)
    ticks.write_text("".join(f"{line}\n" for line in lines))


def ticking(first_s: float, last_s: float, word: str = "start") -> list[str]:
    count = round((last_s - first_s) / 0.05)
    later = [f"tick {first_s + number * 0.05:.2f}" for number in range(1, count + 1)]
    return [f"{word} {first_s:.2f}", *later]


def test_runs_that_follow_each_other_do_not_overlap(tmp_path: Path) -> None:
    write(tmp_path, "host-a/web", *ticking(10, 12), "end 12.03")
    write(tmp_path, "host-b/web", *ticking(12.03, 14))
    assert Truth(tmp_path).overlaps() == []


def test_runs_at_the_same_time_overlap_for_as_long_as_both_are_proven(tmp_path: Path) -> None:
    write(tmp_path, "host-a/web", *ticking(10, 12))
    write(tmp_path, "host-b/web", *ticking(11, 14))
    [overlap] = Truth(tmp_path).overlaps()
    assert (overlap.one, overlap.other) == ("host-a/web", "host-b/web")
    assert overlap.start_s == pytest.approx(11 + CLOCK_STEP_S)
    assert overlap.seconds == pytest.approx(1 - CLOCK_STEP_S)


def test_an_overlap_within_a_pause_of_a_busy_machine_is_seen(tmp_path: Path) -> None:
    write(tmp_path, "host-a/web", "start 10.00", "tick 10.05", f"tick {10.05 + HOLE_S:.2f}")
    write(tmp_path, "host-b/web", *ticking(10.30, 10.60))
    [overlap] = Truth(tmp_path).overlaps()
    assert overlap.seconds == pytest.approx(0.3 - CLOCK_STEP_S)


def test_a_paused_container_overlaps_with_nothing(tmp_path: Path) -> None:
    write(tmp_path, "host-a/web", "start 10.00", "pause", "tick 10.90", "end 10.91")
    write(tmp_path, "host-b/web", *ticking(10.30, 10.60))
    assert Truth(tmp_path).overlaps() == []


def test_a_long_silence_proves_nothing(tmp_path: Path) -> None:
    write(tmp_path, "host-a/web", "start 10.00", f"tick {10.1 + HOLE_S:.2f}")
    write(tmp_path, "host-b/web", *ticking(10.30, 10.60))
    truth = Truth(tmp_path)
    assert truth.overlaps() == []
    assert truth.starts() == [("host-a", "web"), ("host-b", "web")]


def test_other_names_overlap_only_as_a_group(tmp_path: Path) -> None:
    write(tmp_path, "host-a/db", *ticking(10, 12))
    write(tmp_path, "host-b/web", *ticking(11, 14))
    truth = Truth(tmp_path)
    assert truth.overlaps() == []
    assert len(truth.overlaps(group=True)) == 1
    assert truth.overlaps(group=True, since_s=12) == []


def test_a_restart_on_the_same_host_is_two_starts_and_no_overlap(tmp_path: Path) -> None:
    write(tmp_path, "host-a/web", *ticking(10, 11), "end 11.02", *ticking(11.20, 12))
    truth = Truth(tmp_path)
    assert truth.starts() == [("host-a", "web")] * 2
    assert truth.starts(since_s=11) == [("host-a", "web")]
    assert truth.overlaps() == []


def test_downtime_is_the_longest_hole_whoever_ends_it(tmp_path: Path) -> None:
    now = now_s()
    write(tmp_path, "host-a/web", *ticking(now - 8, now - 6))
    write(tmp_path, "host-b/web", *ticking(now - 3, now))
    truth = Truth(tmp_path)
    assert truth.downtime("web", now - 8) == pytest.approx(3, abs=0.1)
    assert truth.first_tick_after(now - 6, host="host-b") == pytest.approx(now - 3, abs=0.02)
    assert truth.first_tick_after(now + 1) is None


def test_running_now_is_what_ticks_and_did_not_end(tmp_path: Path) -> None:
    now = now_s()
    soon = now + 60  # however long it takes until they are read
    write(tmp_path, "host-a/db", *ticking(now - 1, soon))
    write(tmp_path, "host-a/web", *ticking(now - 1, soon), f"end {soon:.2f}")
    write(tmp_path, "host-b/db", *ticking(now - 5, now - 2))
    assert Truth(tmp_path).running_now() == {("host-a", "db")}


def test_a_line_that_is_still_being_written_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, "host-a/web", *ticking(10, 11))
    with (tmp_path / "host-a/web/ticks").open("a") as ticks:
        ticks.write("tick 1")
    [run] = Truth(tmp_path).runs()
    assert run.last_s == pytest.approx(11)
