"""A pair that starts cold, and a few fault sequences of the simulator on real engines.

`make cold-starts` starts twenty times, `make replay` plays fifty sequences (SEEDS=1-50).
"""

import pytest

from failover_agent.core.policy import PartitionPolicy
from tests.lab import cold, replay

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

SEQUENCES = {4: PartitionPolicy.CONSISTENCY, 39: PartitionPolicy.AVAILABILITY}
"""One that moves the service by an order, and one that makes two until first contact."""


def test_cold_starts_give_one_active_each_and_never_two() -> None:
    assert len(list(cold.run(starts=4, seed=1))) == 4


def test_what_befalls_simulated_pairs_befalls_a_real_one_and_no_promise_is_broken() -> None:
    plights = [replay.draw(seed, policy) for seed, policy in SEQUENCES.items()]
    for compared in replay.run(plights):
        assert not compared.failures
