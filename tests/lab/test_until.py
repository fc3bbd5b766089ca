"""The one wait helper."""

import pytest

from tests.lab.until import LabTimeout, until, until_async


def test_until_gives_the_first_truthy_value() -> None:
    values = iter([0, "", 7])
    assert until(lambda: next(values), 5) == 7


def test_until_names_what_did_not_come_and_the_last_value() -> None:
    with pytest.raises(LabTimeout, match=r"not within 0.02 s: a miracle \(last value: \[\]\)"):
        until(list, 0.02, "a miracle")


async def test_until_async_is_until_for_what_is_awaited() -> None:
    values = iter([0, 7])

    async def ask() -> int:
        return next(values)

    async def never() -> bool:
        return False

    assert await until_async(ask, 5) == 7
    with pytest.raises(LabTimeout, match="never"):
        await until_async(never, 0.02)
