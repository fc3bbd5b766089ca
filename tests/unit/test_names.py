"""adapters/names.py: a name that resolves no more, and one that never did."""

import asyncio
import contextlib
import logging
import socket

import pytest

from failover_agent.adapters import names
from failover_agent.adapters.names import Addresses, Name
from tests.lab.until import until_async

GOOD: Addresses = ((socket.AF_INET, "10.0.0.2"),)
GONE = socket.gaierror(socket.EAI_NONAME, "Name or service not known")


class Resolver:
    """Says what it is told to say."""

    def __init__(self, *answers: Addresses | OSError) -> None:
        self.answers = [*answers]

    def __call__(self, host: str) -> Addresses:
        """The last answer again and again."""
        assert host == "host-b"
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, OSError):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def _in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "RETRY_S", (0.0, 0.001))
    monkeypatch.setattr(names, "REFRESH_S", 0.001)


async def kept(name: Name, is_enough: int, caplog: pytest.LogCaptureFixture) -> list[str]:
    """What is said until so much was said; what is lost counts too."""
    caplog.set_level(logging.INFO)
    lost: list[str] = []

    def said() -> list[str]:
        return [str(vars(entry)["fields"]["sentence"]) for entry in caplog.records] + lost

    async def enough() -> bool:
        return len(said()) >= is_enough

    keeping = asyncio.create_task(name.keep(lost.append))  # noqa: TID251 - ended right below
    try:
        await until_async(enough, 30)
    finally:
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping
    return said()


async def test_the_last_good_address_is_used_and_that_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    name = Name("host-b", Resolver(GOOD, GOOD, GONE, GONE, GONE, GOOD))

    assert await kept(name, 2, caplog) == [
        (
            "host-b does not resolve: Name or service not known; the last good address is used: "
            "10.0.0.2"
        ),
        "host-b resolves again",
    ]
    assert [entry.levelname for entry in caplog.records] == ["WARNING", "INFO"]
    assert await name.known() == GOOD


async def test_a_name_that_never_resolved_is_told_each_time_and_known_when_it_does(
    caplog: pytest.LogCaptureFixture,
) -> None:
    name = Name("host-b", Resolver(GONE, GONE, GOOD))
    error = "host-b does not resolve: Name or service not known"

    assert sorted(await kept(name, 3, caplog)) == [error, error, "host-b resolves again"]
    assert name.error == ""
