"""adapters/docker against Engine 26.1: those of its tests in which an engine has a word of its own.

Deaths, health, memory, crash loops, its own restart and death, and what it makes of orders that
overtake each other. The tests are those of test_docker_adapter.py, on another engine.
"""

# ruff: noqa: F401 - pytest finds them here
from collections.abc import Iterator

import pytest

from tests.integration.test_docker_adapter import (
    node,
    test_a_container_between_two_crashes_is_started_by_us,
    test_a_container_out_of_memory_is_down,
    test_a_container_that_does_not_become_healthy_did_not_start,
    test_a_container_that_ignores_term_is_killed_after_its_grace,
    test_a_crash_loop_is_down_and_may_be_alive,
    test_a_death_is_told_at_once_and_nothing_twice,
    test_a_kill_overtakes_a_stop_that_waits,
    test_a_paused_container_is_stopped_without_waiting,
    test_a_policy_is_dropped_before_a_stop_and_a_crash_loop_is_ended,
    test_a_process_that_ended_unnoticed_by_the_engine_is_down,
    test_a_recreated_container_is_followed_by_its_name,
    test_a_start_that_the_engine_refuses_is_told_in_its_words,
    test_an_unhealthy_container_is_down_until_it_is_well_again,
    test_deaths_are_told_while_the_engine_shuts_down,
    test_the_processes_of_a_killed_engine_are_seen_to_live_and_to_end,
)
from tests.lab.lab import Lab

pytestmark = [pytest.mark.integration, pytest.mark.timeout(420)]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab([], releases=("26.1", "")) as made:
        yield made
