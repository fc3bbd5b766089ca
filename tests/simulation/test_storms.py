"""Random histories: SIMULATION_SEEDS of them for each policy (`make soak` sets it)."""

import os

import pytest

from failover_agent.core.policy import PartitionPolicy
from failover_agent.simulation.run import Options, suffer_one_failure, weather_a_storm

pytestmark = pytest.mark.simulation

SEEDS = int(os.environ.get("SIMULATION_SEEDS", "100"))
IN_ONE_TEST = 20

FIRST_SEEDS = range(0, SEEDS, IN_ONE_TEST)


def options_from(first: int, policy: PartitionPolicy) -> list[Options]:
    return [Options(seed, policy) for seed in range(first, min(first + IN_ONE_TEST, SEEDS))]


@pytest.mark.parametrize("policy", PartitionPolicy)
@pytest.mark.parametrize("first", FIRST_SEEDS)
def test_a_storm_breaks_no_rule_and_the_pair_settles_after_it(
    first: int, policy: PartitionPolicy
) -> None:
    for options in options_from(first, policy):
        weather_a_storm(options)


@pytest.mark.parametrize("policy", PartitionPolicy)
@pytest.mark.parametrize("first", FIRST_SEEDS)
def test_one_failure_touches_nothing_or_is_mended_within_the_bound(
    first: int, policy: PartitionPolicy
) -> None:
    for options in options_from(first, policy):
        suffer_one_failure(options)
