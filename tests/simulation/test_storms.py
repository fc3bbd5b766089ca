"""Random histories: SIMULATION_SEEDS of each kind of cluster (`make soak` sets it)."""

import os
from dataclasses import replace

import pytest

from failover_agent.core.policy import PartitionPolicy
from failover_agent.simulation.run import (
    Arbiter,
    Options,
    suffer_one_failure,
    weather_a_storm,
)

pytestmark = pytest.mark.simulation

SEEDS = int(os.environ.get("SIMULATION_SEEDS", "20"))
IN_ONE_TEST = 10

FIRST_SEEDS = range(0, SEEDS, IN_ONE_TEST)
CLUSTERS = {
    "availability": Options(0, PartitionPolicy.AVAILABILITY),
    "consistency": Options(0, PartitionPolicy.CONSISTENCY),
    "witness": Options(0, arbiter=Arbiter.WITNESS),
    "etcd": Options(0, arbiter=Arbiter.ETCD),
}


def options_from(first: int, cluster: str) -> list[Options]:
    seeds = range(first, min(first + IN_ONE_TEST, SEEDS))
    return [replace(CLUSTERS[cluster], seed=seed) for seed in seeds]


@pytest.mark.parametrize("cluster", CLUSTERS)
@pytest.mark.parametrize("first", FIRST_SEEDS)
def test_a_storm_breaks_no_rule_and_the_cluster_settles_after_it(first: int, cluster: str) -> None:
    for options in options_from(first, cluster):
        weather_a_storm(options)


@pytest.mark.parametrize("cluster", sorted(set(CLUSTERS) - {"etcd"}))
def test_a_second_cable_that_is_slow_lossy_or_cut_excuses_nothing(cluster: str) -> None:
    for options in options_from(0, cluster):
        weather_a_storm(replace(options, cables=2))


@pytest.mark.parametrize("cluster", CLUSTERS)
@pytest.mark.parametrize("first", FIRST_SEEDS)
def test_one_failure_touches_nothing_or_is_mended_within_the_bound(
    first: int, cluster: str
) -> None:
    for options in options_from(first, cluster):
        suffer_one_failure(options)
