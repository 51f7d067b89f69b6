"""What every driver must do, run over every implementation (see `driver_cases`).

A polled driver returns all tags in one scan, a subscription none or many partial ones; the rows below hold for both,
so they read until each tag has been seen. The time-outs here are no measurements: they keep a hanging driver from
hanging the suite.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import pytest

from protocols.field.contract import DeviceAway, Driver, Group, Inspects, Quality, Scan, Value, ValueType
from tests.contract.driver_cases import Case, DriverCase, cases
from tests.support.sockets import open_sockets

HANG_S = 30
ALL = cases()

PYTHON_TYPES = {
    ValueType.BOOL: bool,
    ValueType.INT: int,
    ValueType.UINT: int,
    ValueType.FLOAT32: float,
    ValueType.FLOAT64: float,
    ValueType.STRING: str,
}

Reading = tuple[Value, int, str]  # value, quality, reason


@pytest.fixture(params=list(ALL.values()), ids=list(ALL))
def new_case(request: pytest.FixtureRequest) -> Case:
    case: Case = request.param
    return case


@asynccontextmanager
async def watched(new_case: Case, caplog: pytest.LogCaptureFixture) -> AsyncIterator[DriverCase]:
    """The case; in the end its driver is closed, and nothing was thrown into the loop or logged with a traceback."""
    thrown: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: thrown.append(context))
    async with asyncio.timeout(HANG_S), new_case() as case:
        try:
            yield case
        finally:
            await case.driver.close()
    await asyncio.sleep(0)
    assert thrown == []
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


def check_shape(scan: Scan, group: Group) -> None:
    """The invariants of a scan that its type cannot express."""
    indexes = range(len(group.tags)) if scan.indexes is None else scan.indexes
    assert scan.group is group
    assert len(scan) == len(scan.values) == len(indexes)
    assert list(indexes) == sorted(set(indexes))
    assert set(indexes) <= set(range(len(group.tags)))
    assert scan.quality is None or len(scan.quality) == len(scan.values)
    assert 1_500_000_000_000_000 < scan.time_us < 4_000_000_000_000_000  # microseconds: between 2017 and 2096
    for position, index in enumerate(indexes):
        value, quality = scan.values[position], Quality.GOOD if scan.quality is None else scan.quality[position]
        if Quality.word(quality) == "good":
            assert type(value) is PYTHON_TYPES[group.tags[index].value_type], group.tags[index]
        if value is None:
            assert Quality.word(quality) == "bad"
        if Quality.word(quality) == "bad":
            assert len(scan.reasons[index].split()) > 2, "a reason is a sentence"
    assert set(scan.reasons) <= set(indexes)


async def readings(driver: Driver, group: Group) -> dict[str, Reading]:
    """The newest reading of each tag, read until every tag was seen."""
    seen: dict[str, Reading] = {}
    while True:
        scans = await driver.read(group)
        for scan in scans:
            check_shape(scan, group)
        seen |= taken(scans, group)
        if len(seen) == len(group.tags):
            return seen
        await asyncio.sleep(0.01)


def taken(scans: Sequence[Scan], group: Group) -> dict[str, Reading]:
    """The newest reading of each tag in these scans."""
    seen: dict[str, Reading] = {}
    for scan in scans:
        indexes = range(len(group.tags)) if scan.indexes is None else scan.indexes
        for position, index in enumerate(indexes):
            quality = Quality.GOOD if scan.quality is None else scan.quality[position]
            seen[group.tags[index].name] = (scan.values[position], quality, scan.reasons.get(index, ""))
    return seen


async def check_values(case: DriverCase) -> None:
    """Reads every group: what must be good is as expected, what must be bad is bad."""
    for group in case.groups:
        for name, (value, quality, reason) in (await readings(case.driver, group)).items():
            if name in case.bad:
                assert Quality.word(quality) == "bad", name
                continue
            assert Quality.word(quality) == "good", f"{name}: {reason}"
            expected = case.good[name]
            assert expected(value) if callable(expected) else value == expected, f"{name}: {value!r}"


async def read_until_away(case: DriverCase) -> DeviceAway:
    """Reads until the driver notices that its device is away."""
    while True:
        try:
            await case.driver.read(case.groups[0])
        except DeviceAway as error:
            return error
        await asyncio.sleep(0.01)


async def connect_in_time(driver: Driver) -> None:
    """Connects; a server that is just coming up again may take a moment."""
    while True:
        with suppress(DeviceAway):
            return await driver.connect()
        await asyncio.sleep(0.05)


async def test_the_case_says_what_to_expect_of_each_tag(new_case: Case) -> None:
    async with new_case() as case:
        names = [tag.name for group in case.groups for tag in group.tags]
        assert sorted(names) == sorted([*case.good, *case.bad])
        assert isinstance(case.driver, Driver)
        assert (case.cut is None) == (case.restore is None)


async def test_reads_every_tag_with_its_value_or_its_reason(new_case: Case, caplog: pytest.LogCaptureFixture) -> None:
    async with watched(new_case, caplog) as case:
        assert case.driver.requests == 0
        await case.driver.connect()
        await check_values(case)
        assert case.driver.requests > 0
        for group in case.groups:
            for scan in await case.driver.read(group):  # a subscription may have nothing new to say
                check_shape(scan, group)


async def test_what_is_inspected_is_what_is_read(new_case: Case, caplog: pytest.LogCaptureFixture) -> None:
    """Twice: a driver may have learned something from the first time. And reading goes on as before."""
    async with watched(new_case, caplog) as case:
        driver = case.driver
        if not isinstance(driver, Inspects):
            return  # a driver may leave it out
        assert all(driver.facts().values())
        with pytest.raises(DeviceAway):
            await driver.inspect(case.groups[0])
        await driver.connect()
        for group in [*case.groups, *case.groups]:
            before = driver.requests
            seen = await driver.inspect(group)
            assert 0 < len(seen.latencies_s) <= driver.requests - before
            assert min(seen.latencies_s) > 0
            for scan in seen.scans:
                check_shape(scan, group)
            for name, (value, quality, reason) in taken(seen.scans, group).items():
                assert (Quality.word(quality) == "bad") == (name in case.bad), f"{name}: {reason}"
                expected = case.good.get(name)
                assert name in case.bad or (expected(value) if callable(expected) else value == expected), name
            for tag, evidence in zip(group.tags, seen.evidence, strict=True):
                assert evidence.place and evidence.type
                assert evidence.raw or tag.name in case.bad, "what is good came from bytes"
        await check_values(case)


async def test_read_before_connect_says_so(new_case: Case, caplog: pytest.LogCaptureFixture) -> None:
    async with watched(new_case, caplog) as case:
        with pytest.raises(DeviceAway):
            await case.driver.read(case.groups[0])


async def test_close_may_come_at_any_time_and_twice(new_case: Case, caplog: pytest.LogCaptureFixture) -> None:
    async with watched(new_case, caplog) as case:
        await case.driver.close()
        await case.driver.connect()
        await check_values(case)
        await case.driver.close()
        await case.driver.close()
        with pytest.raises(DeviceAway):
            await case.driver.read(case.groups[0])
        await case.driver.connect()
        await check_values(case)


async def test_a_cut_is_noticed_and_overcome(new_case: Case, caplog: pytest.LogCaptureFixture) -> None:
    async with watched(new_case, caplog) as case:
        if case.cut is None or case.restore is None:
            pytest.skip("has no endpoint that could be cut")
        await case.driver.connect()
        await check_values(case)
        await case.cut()
        error = await read_until_away(case)
        assert Quality.word(error.quality) == "bad"
        assert str(error).endswith(".") and len(str(error).splitlines()) == 1
        with pytest.raises(DeviceAway):
            await case.driver.connect()
        await case.restore()
        await connect_in_time(case.driver)
        await check_values(case)


async def test_reconnecting_leaks_no_sockets(new_case: Case, caplog: pytest.LogCaptureFixture) -> None:
    async with watched(new_case, caplog) as case:
        await case.driver.connect()
        await readings(case.driver, case.groups[0])
        before = open_sockets()
        for round_ in range(20):
            if round_ % 2:
                await case.driver.close()
            await case.driver.connect()  # in place of the connection that is still there, every other time
        await readings(case.driver, case.groups[0])
        while open_sockets() > before:  # noqa: ASYNC110 the device's end of the line tells nobody when it is closed
            await asyncio.sleep(0.01)  # HANG_S bounds it


async def test_a_cancelled_read_leaves_the_driver_usable(new_case: Case, caplog: pytest.LogCaptureFixture) -> None:
    async with watched(new_case, caplog) as case:
        await case.driver.connect()
        for turns in range(6):  # cancel it at different places
            task = asyncio.create_task(case.driver.read(case.groups[0]))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await case.driver.close()
            await case.driver.connect()
            await check_values(case)
