"""A short random walk of every fault; `make nemesis` goes on for longer, from any seed."""

import pytest

from tests.lab import nemesis

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]


def test_a_random_walk_of_faults_never_makes_two_and_ends_with_one() -> None:
    assert nemesis.run(seed=20261122, minutes=0.5, arbiter="witness").counts
