"""Many containers in one group: how long they take to move, and what they cost at rest.

    python bench/scale.py [--containers 200] [--events 5000]

Two lab hosts with engines and a third with a witness; T = 3 s, a beat each 0.4 s. Each step prints
a line when it is done: all started in order on one host; idle for 30 s; a storm of events of which
none matters, and in the middle of it one container dies and is repaired; one beyond repair, so that
all move in order and none runs twice; and the host crashes, so that all move back.
"""

from __future__ import annotations

import argparse
import time

from bench.table import print_head
from bench.usage import pss_mb, usage
from tests.lab import crowd
from tests.lab.lab import Lab, Node
from tests.lab.truth import now_s
from tests.lab.until import until

IDLE_S = 30.0


def _say(what: str, found: str) -> None:
    print(f"{what:<44} {found}", flush=True)


def _idle(node: Node, what: str) -> None:
    pids = {"agent": node.agent.agent_pid, "guard": node.agent.guard_pid}
    pids["engine"] = node.engine.process.pid
    before = {name: usage(pid) for name, pid in pids.items()}
    begun_s = now_s()
    time.sleep(IDLE_S)
    lasted_s = now_s() - begun_s
    shares = [
        f"{name} {100 * (usage(pid) - before[name]).processor_s / lasted_s:.2f} %"
        for name, pid in pids.items()
    ]
    size = f"agent {pss_mb(pids['agent']):.0f} MB, guard {pss_mb(pids['guard']):.0f} MB"
    _say(what, f"{', '.join(shares)} of a core; {size}")


def main() -> None:
    """Print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--containers", type=int, default=200)
    parser.add_argument("--events", type=int, default=5000)
    arguments = parser.parse_args()
    number: int = arguments.containers
    limit_s = 60.0 + 3.0 * number
    print_head(f"{number} containers in one group")
    begun_s = now_s()
    with Lab(crowd.sleepers(number), third_host=True) as lab:
        _say("created on both engines", f"{now_s() - begun_s:.1f} s")
        crowd.start(lab, restart_attempts=3)
        took_s = crowd.took_s(lambda: crowd.is_serving(lab.a), limit_s, "all run on host-a")
        _say("all started in order on one host", f"{took_s:.1f} s")
        crowd.assert_started_in_order(lab.a)
        until(lambda: crowd.has_ready_peer(lab.a), limit_s, "the peer is ready")
        _idle(lab.a, "active, idle")
        _idle(lab.b, "standby, idle")
        before = crowd.lives(lab.a)
        size_mb = pss_mb(lab.a.agent.agent_pid)
        storm = crowd.Storm(lab.a)
        try:
            until(lambda: storm.said >= arguments.events // 2, limit_s, "half of the storm")
            middle = lab.a.services[f"app-{number // 2:03}"]
            middle.kill()
            until(lambda: middle.state == "running", limit_s, "it was repaired")
            until(lambda: storm.said >= arguments.events, limit_s, "all of the storm")
        finally:
            storm.end()
        grown_mb = pss_mb(lab.a.agent.agent_pid) - size_mb
        _say(
            "storm of events",
            f"{storm.said} in {storm.lasted_s:.1f} s; longest silence between beats"
            f" {storm.longest_age_s:.2f} s; agent grown by {grown_mb:.1f} MB",
        )
        after = crowd.lives(lab.a)
        moved = [one.name for one, other in zip(before, after, strict=True) if one != other]
        assert moved == [middle.name], moved
        until(lambda: crowd.has_ready_peer(lab.a), limit_s, "all is well")

        middle.break_start()
        middle.kill()
        took_s = crowd.took_s(lambda: crowd.is_serving(lab.b), 2 * limit_s, "all run on host-b")
        _say("one beyond repair: all moved", f"{took_s:.1f} s")
        crowd.assert_started_in_order(lab.b)
        crowd.assert_never_two(crowd.lives(lab.b), crowd.lives(lab.a))
        middle.mend_start()
        until(lambda: crowd.has_ready_peer(lab.b), limit_s, "the peer is ready")

        lab.b.crash()
        took_s = crowd.took_s(lambda: crowd.is_serving(lab.a), limit_s, "all run on host-a")
        _say("the host crashed: all moved", f"{took_s:.1f} s")
        crowd.assert_started_in_order(lab.a)


if __name__ == "__main__":
    main()
