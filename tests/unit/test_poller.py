"""One device's loop: what it says when the device goes away, and that no driver ends it or delays the others."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from agent import poller as module
from agent.poller import RETRY_S_FIRST, RETRY_S_MAX, Poller
from protocols.field.contract import DeviceAway, DeviceRefused, DeviceTimeout, Driver, Group, Quality, Scan, Tag
from protocols.field.memory import MemoryDriver
from protocols.values import ValueType

QUICK_S = 0.001
TAGS = (Tag("a", ValueType.FLOAT64), Tag("b", ValueType.INT))
GROUP = Group("plc-1", "main", QUICK_S, TAGS)
SECOND = Group("plc-1", "slow", QUICK_S, (Tag("c", ValueType.BOOL),))
AWAY = DeviceAway("plc-1 (modbus 10.0.0.5:502): connection refused; check the address")
TIMEOUT = DeviceTimeout("plc-1 (modbus 10.0.0.5:502, unit 1): no answer within 1 s; check the unit id")


@pytest.fixture(autouse=True)
def no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S_FIRST", QUICK_S)
    monkeypatch.setattr(module, "RETRY_S_MAX", QUICK_S)


def good(group: Group = GROUP, time_us: int = 5) -> Scan:
    return Scan(group, time_us, [1.5, 2] if group is GROUP else [True])


def faulty(reason: str = "the sensor is broken") -> Scan:
    return Scan(GROUP, 6, [None, 2], None, [Quality.BAD_DEVICE_FAILURE, 0], {0: reason})


class ScriptedDriver:
    """Does what the script says, call after call; then `done` is set, and it answers no more.

    An exception is raised, scans are returned, "ok" is a connect that succeeds. `calls` notes what was asked for.
    """

    def __init__(self, *script: Any, close_raises: Exception | None = None) -> None:
        self.requests = 0
        self.calls: list[str] = []
        self.done = asyncio.Event()
        self._script = list(script)
        self._close_raises = close_raises

    async def _next(self, call: str) -> Any:
        self.calls.append(call)
        if not self._script:
            self.done.set()
            await asyncio.Event().wait()
        step = self._script.pop(0)
        if isinstance(step, BaseException):
            raise step
        return step

    async def connect(self) -> None:
        assert await self._next("connect") == "ok"

    async def read(self, group: Group) -> Sequence[Scan]:
        found: Sequence[Scan] = await self._next(f"read {group.name}")
        return found

    async def close(self) -> None:
        self.calls.append("close")
        if self._close_raises is not None:
            raise self._close_raises


class Heard:
    """Takes what a poller gives, and notes each change of state."""

    def __init__(self) -> None:
        self.scans: list[Scan] = []
        self.states: list[str] = []
        self.poller: Poller | None = None
        self._news = asyncio.Event()

    def take(self, scan: Scan) -> None:
        self.scans.append(scan)
        self._news.set()

    def change(self) -> None:
        assert self.poller is not None
        self.states.append(self.poller.state.state)
        self._news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._news.clear()
            await self._news.wait()

    def listen(self, driver: Driver, *groups: Group, kind: type[Poller] = Poller) -> Poller:
        self.poller = kind("plc-1", driver, groups or (GROUP,), self.take, self.change)
        return self.poller


@contextlib.asynccontextmanager
async def running(*pollers: Poller) -> Any:
    """The pollers at work; they end with the block, and have failed nowhere."""
    tasks = [asyncio.create_task(one.run(), name=one.device) for one in pollers]
    try:
        yield tasks
        assert not any(task.done() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended


async def play(*script: Any, groups: Iterable[Group] = (GROUP,), **options: Any) -> tuple[Heard, ScriptedDriver]:
    """Run a poller until its driver's script is at its end."""
    heard, driver = Heard(), ScriptedDriver(*script, **options)
    async with running(heard.listen(driver, *groups)) as tasks:
        ended = asyncio.create_task(driver.done.wait())
        await asyncio.wait([ended, *tasks], return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
    return heard, driver


def what(scan: Scan) -> tuple[str, list[Any], list[int] | None, dict[int, str]]:
    quality = None if scan.quality is None else list(scan.quality)
    return scan.group.name, list(scan.values), quality, dict(scan.reasons)


# --- reading ---------------------------------------------------------------------------------------------------------


async def test_every_scan_is_handed_on_as_it_is_and_in_order() -> None:
    scans = [good(time_us=at) for at in range(5)]
    heard, driver = await play("ok", [scans[0]], [], scans[1:4], [scans[4]])
    assert heard.scans == scans
    assert heard.states == ["ok"]
    assert heard.poller is not None
    assert heard.poller.state.readings == 10
    assert driver.calls == ["connect", *["read main"] * 5, "close"]


async def test_every_group_is_read_at_once_when_the_device_can_be_reached_and_then_on_its_grid() -> None:
    rare = Group("plc-1", "rare", 3600.0, SECOND.tags)
    driver, heard = MemoryDriver("plc-1", [GROUP, rare]), Heard()

    def reads(name: str) -> int:
        return sum(1 for scan in heard.scans if scan.group.name == name and scan.quality is None)

    async with running(heard.listen(driver, GROUP, rare)):
        await heard.until(lambda: reads("main") > 5)
        assert reads("rare") == 1
        driver.cut()
        await heard.until(lambda: heard.states[-1] == "away")
        driver.restore()
        before = reads("main")
        await heard.until(lambda: reads("main") > before + 5)
        assert reads("rare") == 2


# --- away ------------------------------------------------------------------------------------------------------------


async def test_away_is_said_once_per_change_and_so_is_the_return() -> None:
    with capture_logs() as logs:
        heard, driver = await play(
            *("ok", [good()]),
            *(AWAY, AWAY, "ok", AWAY),
            *("ok", TIMEOUT, TIMEOUT),
            *("ok", [good(time_us=7)], [good(time_us=8)]),
        )
    away, timeout = (list(what(Scan.all_bad(GROUP, 0, error.quality, str(error)))) for error in (AWAY, TIMEOUT))
    assert [list(what(scan)) for scan in heard.scans] == [
        list(what(good())),
        away,
        timeout,
        list(what(good())),
        list(what(good())),
    ]
    assert heard.states == ["ok", "away", "ok"]
    assert [(log["event"], log["log_level"]) for log in logs] == [
        (str(AWAY), "warning"),
        (str(TIMEOUT), "warning"),
        ("answers again", "info"),
    ]
    assert logs[-1]["failures"] == 5
    assert driver.calls.count("close") == 5 + 1


async def test_a_device_that_is_away_at_the_start_yields_every_group_once() -> None:
    heard, _ = await play(AWAY, AWAY, AWAY, groups=(GROUP, SECOND))
    assert [(scan.group.name, list(scan.quality or ())) for scan in heard.scans] == [
        ("main", [Quality.BAD_NOT_CONNECTED] * 2),
        ("slow", [Quality.BAD_NOT_CONNECTED]),
    ]
    assert heard.states == ["away"]
    assert heard.poller is not None
    assert heard.poller.state.reason == str(AWAY)
    assert heard.poller.state.failures == 3


async def test_what_was_refused_is_tried_again_too_because_a_person_may_mend_it() -> None:
    heard, _ = await play(DeviceRefused("plc-1: wrong password; check username and password"), "ok", [good()])
    assert [scan.quality for scan in heard.scans] == [[Quality.BAD_CONFIGURATION] * 2, None]
    assert heard.states == ["away", "ok"]


async def test_failures_are_counted_from_the_last_reading_on() -> None:
    heard, _ = await play(AWAY, AWAY, "ok", [good()], AWAY)
    assert heard.poller is not None
    assert heard.poller.state.failures == 1


async def test_the_log_is_reminded_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMIND_S", 0.0)
    with capture_logs() as logs:
        heard, _ = await play(AWAY, AWAY, AWAY)
    assert [log["event"] for log in logs] == [str(AWAY), "still away", "still away"]
    assert [log["failures"] for log in logs[1:]] == [2, 3]
    assert logs[1]["reason"] == str(AWAY)
    assert len(heard.scans) == 1


class Restful(Poller):
    """Notes how long it would have paused."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.pauses_s: list[float] = []

    async def _sleep(self, pause_s: float) -> None:
        self.pauses_s.append(pause_s)
        await asyncio.sleep(0)


async def test_pauses_grow_to_a_limit_and_begin_anew_after_a_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S_FIRST", RETRY_S_FIRST)
    monkeypatch.setattr(module, "RETRY_S_MAX", RETRY_S_MAX)
    driver, heard = ScriptedDriver(*[AWAY] * 8, "ok", [good()], AWAY), Heard()
    restful = heard.listen(driver, kind=Restful)
    assert isinstance(restful, Restful)
    async with running(restful):
        await driver.done.wait()
    pauses_s = restful.pauses_s
    for pause_s, expected_s in zip(pauses_s[:8], [1, 2, 4, 8, 16, 30, 30, 30], strict=True):
        assert 0.8 * expected_s <= pause_s <= 1.2 * expected_s
    assert 0.8 * RETRY_S_FIRST <= pauses_s[-1] <= 1.2 * RETRY_S_FIRST


async def test_a_connect_that_succeeds_does_not_shorten_the_pauses_if_no_reading_follows() -> None:
    """A PLC that accepts connections and answers nothing is not asked every second."""
    driver, heard = ScriptedDriver(*["ok", TIMEOUT] * 3), Heard()
    restful = heard.listen(driver, kind=Restful)
    assert isinstance(restful, Restful)
    restful._pause_s = 1.0
    async with running(restful):
        await driver.done.wait()
    assert restful._pause_s == QUICK_S  # the limit of these tests, reached from above by doubling and no reset
    assert len(heard.scans) == 1


# --- tags that fail --------------------------------------------------------------------------------------------------


async def test_a_device_whose_tags_fail_is_bad_until_they_are_well() -> None:
    heard, _ = await play("ok", [good()], [faulty()], [faulty()], [good()])
    assert heard.states == ["ok", "bad", "ok"]
    heard, _ = await play("ok", [faulty("broken")])
    assert heard.poller is not None
    assert heard.poller.state.reason == "one tag fails: broken"


async def test_a_partial_scan_says_nothing_of_the_tags_that_it_lacks() -> None:
    only_b = Scan(GROUP, 7, [3], indexes=[1])
    only_a = Scan(GROUP, 8, [1.5], indexes=[0])
    heard, _ = await play("ok", [faulty()], [only_b], [only_b])
    assert heard.states == ["bad"]
    heard, _ = await play("ok", [faulty()], [only_b], [only_a])
    assert heard.states == ["bad", "ok"]


async def test_faults_of_one_group_are_not_mended_by_another() -> None:
    rare = Group("plc-1", "rare", 3600.0, SECOND.tags)
    driver, heard = MemoryDriver("plc-1", [GROUP, rare]), Heard()
    driver.fail("c", Quality.BAD_DEVICE_FAILURE, "the sensor is broken")
    async with running(heard.listen(driver, GROUP, rare)):
        await heard.until(lambda: "bad" in heard.states)
        before = len(heard.scans)
        await heard.until(lambda: len(heard.scans) > before + 5)
        assert heard.states[-1] == "bad"


async def test_faults_from_before_an_outage_do_not_outlive_it() -> None:
    only_b = Scan(GROUP, 7, [3], indexes=[1])
    heard, _ = await play("ok", [faulty()], AWAY, "ok", [only_b])
    assert heard.states == ["bad", "away", "ok"]


# --- drivers that break their word -----------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError("no such register"), RuntimeError(), ZeroDivisionError("x" * 900)])
async def test_what_a_driver_should_not_raise_takes_its_device_away_and_no_more(error: Exception) -> None:
    with capture_logs() as logs:
        heard, driver = await play(error, "ok", error, "ok", [good()])
    assert heard.states == ["away", "ok"]
    assert [scan.quality for scan in heard.scans] == [[Quality.BAD] * 2, None]
    assert type(error).__name__ in heard.scans[0].reasons[0]
    assert logs[0]["exc_info"] is error
    assert driver.calls.count("close") == 3


STRANGE: dict[str, tuple[Scan, str]] = {
    "too few values": (Scan(GROUP, 1, [1.5]), "1 values for 2 tags"),
    "too many values": (Scan(GROUP, 1, [1.5], indexes=[]), "1 values for 0 tags"),
    "too few qualities": (Scan(GROUP, 1, [1.5, 2], None, [0]), "1 qualities for 2 tags"),
    "no qualities": (Scan(GROUP, 1, [1.5, 2], None, []), "0 qualities for 2 tags"),
    "an index beyond": (Scan(GROUP, 1, [1.5], indexes=[2]), "other tags"),
    "an index before": (Scan(GROUP, 1, [1.5], indexes=[-1]), "other tags"),
    "another group": (Scan(SECOND, 1, [True]), "other tags"),
    "a time before 1970": (Scan(GROUP, -1, [1.5, 2]), "the time -1"),
    "a time after 9999": (Scan(GROUP, 10**18, [1.5, 2]), "the time 1000000000000000000"),
}


@pytest.mark.parametrize(("scan", "says"), STRANGE.values(), ids=STRANGE.keys())
async def test_a_scan_that_could_not_be_stored_takes_its_device_away(scan: Scan, says: str) -> None:
    heard, _ = await play("ok", [good()], [scan], "ok", [good()])
    assert heard.states == ["ok", "away", "ok"]
    assert [one.quality for one in heard.scans] == [None, [Quality.BAD] * 2, None]
    assert says in heard.scans[1].reasons[0]
    assert heard.scans[1].reasons[0].startswith("plc-1: the driver gave ")


async def test_a_float_is_no_time() -> None:
    scan = Scan(GROUP, 1.5e15, [1.5, 2])  # type: ignore[arg-type]  # what time.time() * 1e6 gives
    heard, _ = await play("ok", [scan])
    assert "the time 1500000000000000.0" in heard.scans[0].reasons[0]


async def test_a_close_that_raises_is_noted_and_survived() -> None:
    with capture_logs() as logs:
        heard, _ = await play(AWAY, "ok", [good()], close_raises=OSError("bad file descriptor"))
    assert heard.states == ["away", "ok"]
    assert any("bad file descriptor" in log["event"] for log in logs)


# --- the end, and the others -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", [[], ["ok"], ["ok", [good()]], [AWAY]], ids=["connect", "read", "reading", "away"])
async def test_it_closes_the_driver_wherever_it_is_cancelled(script: list[Any]) -> None:
    _, driver = await play(*script)
    assert driver.calls[-1] == "close"
    assert driver.calls.count("close") == 1 + (AWAY in script)


async def test_a_slow_device_delays_no_other() -> None:
    stuck, quick = MemoryDriver("plc-1", [GROUP]), MemoryDriver("plc-2", [GROUP])
    stuck.hold()
    heard_stuck, heard_quick = Heard(), Heard()
    async with running(heard_stuck.listen(stuck), heard_quick.listen(quick)):
        await heard_quick.until(lambda: len(heard_quick.scans) >= 10)
        assert stuck.requests == 1
        assert heard_stuck.scans == []
        stuck.release()
        await heard_stuck.until(lambda: len(heard_stuck.scans) > 0)


async def test_a_device_in_memory_goes_away_and_comes_back() -> None:
    """The whole way with a driver of ours."""
    driver, heard = MemoryDriver("plc-1", [GROUP]), Heard()
    async with running(heard.listen(driver)):
        await heard.until(lambda: heard.states == ["ok"])
        driver.set("a", 71.5)
        driver.fail("b", Quality.BAD_DEVICE_FAILURE, "the sensor is broken")
        await heard.until(lambda: heard.states == ["ok", "bad"])
        driver.cut()
        await heard.until(lambda: heard.states == ["ok", "bad", "away"])
        driver.set("b", 3)
        driver.restore()
        await heard.until(lambda: heard.states == ["ok", "bad", "away", "ok"])
    bad = [scan for scan in heard.scans if scan.quality == [Quality.BAD_NOT_CONNECTED] * 2]
    assert len(bad) == 1
    assert list(heard.scans[-1].values) == [71.5, 3]
    assert driver.connects == 2


async def test_what_is_shaped_is_handed_on_and_counted_also_of_a_device_that_is_away() -> None:
    """Reports by exception leave readings out; what was read shows in the state of the device all the same."""
    driver, heard = ScriptedDriver("ok", [good()], [], [faulty()], AWAY, AWAY), Heard()
    shaped: list[tuple[str, int]] = []

    def shape(group: Group, scans: Sequence[Scan], now_s: float, now_us: int) -> Sequence[Scan]:
        shaped.append((group.name, len(scans)))
        return [scan for scan in scans if scan.quality is not None]

    poller = Poller("plc-1", driver, [GROUP], heard.take, shape=shape)
    async with running(poller):
        await driver.done.wait()
    assert shaped == [("main", 1), ("main", 0), ("main", 1), ("main", 1)]
    assert [list(scan.values) for scan in heard.scans] == [[None, 2], [None, None]]
    assert poller.state.readings == 4
    assert poller.state.state == "away"
