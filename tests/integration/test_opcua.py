"""The OPC UA driver against asyncua's own server, over real sockets.

Times are the server's, set by the tests. Where a test shows that something was *not* reported, it changes a marker
tag afterwards and reads until the marker comes: what should have come earlier would have come by then.

NOON and what is counted from it is past: after a reconnect, values with such times are stated once more as of then.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from asyncua.server.internal_session import InternalSession
from asyncua.server.internal_subscription import InternalSubscription
from asyncua.ua import StatusCode, UInt32
from asyncua.ua.status_codes import StatusCodes

from agent import poller
from protocols.field import opcua, opcua_session, opcua_subscription
from protocols.field.contract import DeviceAway, DeviceRefused, DeviceTimeout, Group, Quality, Scan, Value, ValueType
from protocols.field.opcua_inbox import BAD_DATA_LOST, Inbox
from tests.support.opcua_server import NOON, NOON_US, SENSOR_FAILURE, OpcuaServer, Wire, opcua_server

PRESS_TEMPERATURE = ("nsu=urn:plant:press;s=Temperature", "float64")
OVEN_TEMPERATURE = ("nsu=urn:plant:oven;s=Temperature", "float64")
MARKER = ("nsu=urn:plant:press;s=Item0", "int")


pytestmark = pytest.mark.timeout(40)  # no measurement: a test that waits in vain fails


class Seen(NamedTuple):
    tag: str
    time_us: int
    value: Value
    quality: int
    reason: str


@pytest.fixture
async def server() -> AsyncIterator[OpcuaServer]:
    async with opcua_server() as running:
        yield running


def group(tags: dict[str, tuple[str, str]], mode: str = "subscribe", name: str = "fast") -> Group:
    settings = [opcua.TagSettings(name=tag, node=node, type=ValueType(kind)) for tag, (node, kind) in tags.items()]
    options = opcua.GroupSettings.model_validate({"mode": mode})
    return Group("press", name, 0.05, tuple(opcua.tag(each) for each in settings), options)


def items(count: int, mode: str) -> Group:
    return group({f"item{n}": (f"nsu=urn:plant:press;s=Item{n}", "int") for n in range(count)}, mode)


class BeforeNoon(Inbox):
    """Of a driver that was first connected before NOON: so that the first connect states nothing once more."""

    def __init__(self) -> None:
        super().__init__()
        self._connects = 0

    def reconnected(self, now_us: int) -> None:
        self._connects += 1
        super().reconnected(NOON_US - 1 if self._connects == 1 else now_us)


def driver(url: str, *groups: Group, timeout_s: float = 10.0, **more: object) -> opcua.OpcuaDriver:
    plc = started(url, *groups, timeout_s=timeout_s, **more)
    plc._inboxes = {of.name: BeforeNoon() for of in groups}
    return plc


def started(url: str, *groups: Group, timeout_s: float = 10.0, **more: object) -> opcua.OpcuaDriver:
    """As the agent makes it when it starts."""
    settings = opcua.Settings.model_validate({"url": url, "timeout_s": timeout_s, **more})
    return opcua.driver("plc-1", settings, groups)


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def seen_in(scan: Scan) -> list[Seen]:
    indexes = range(len(scan)) if scan.indexes is None else scan.indexes
    return [
        Seen(scan.group.tags[index].name, scan.time_us, value, quality, scan.reasons.get(index, ""))
        for index, value, quality in zip(indexes, scan.values, scan.quality or [0] * len(scan), strict=True)
    ]


async def read_once(plc: opcua.OpcuaDriver, of: Group) -> list[Seen]:
    return [each for scan in await plc.read(of) for each in seen_in(scan)]


async def reconnect(plc: opcua.OpcuaDriver) -> int:
    """Connect; returns a moment just before, which nothing that is stated anew precedes."""
    moment_us = time.time_ns() // 1000
    await plc.connect()
    return moment_us


async def read_until(plc: opcua.OpcuaDriver, of: Group, enough: Callable[[Sequence[Seen]], bool]) -> list[Seen]:
    seen: list[Seen] = []
    while not enough(seen):
        seen += await read_once(plc, of)
        await asyncio.sleep(0.01)
    return seen


def has(value: Value) -> Callable[[Sequence[Seen]], bool]:
    return lambda seen: any(each.value == value for each in seen)


async def read_all(plc: opcua.OpcuaDriver, of: Group) -> dict[str, Seen]:
    """The first reading of every tag."""
    seen = await read_until(plc, of, lambda seen: len({each.tag for each in seen}) == len(of.tags))
    return {each.tag: each for each in reversed(seen)}


async def until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110  # neither the kernel nor asyncua tells when it has let go
        await asyncio.sleep(0.01)


async def read_to_marker(server: OpcuaServer, plc: opcua.OpcuaDriver, of: Group, value: int) -> list[Seen]:
    """Everything that is reported up to a change of the tag `marker`, without that."""
    await server.set("Item0", value, source=after(value))
    seen = await read_until(plc, of, lambda seen: any(each.tag == "marker" and each.value == value for each in seen))
    return [each for each in seen if each.tag != "marker"]


async def read_until_away(plc: opcua.OpcuaDriver, of: Group) -> DeviceAway:
    with pytest.raises(DeviceAway) as caught:
        await read_until(plc, of, lambda _: False)
    return caught.value


def sockets() -> int:
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # iterating opens one itself
            count += str(entry.readlink()).startswith("socket:")
    return count


def client_tasks() -> list[str]:
    """The library's tasks of clients, running in this loop."""
    names = (getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks())
    return [name for name in names if name.startswith(("UaSession", "Client", "Subscription", "UASocket"))]


def subscription(server: OpcuaServer) -> Any:
    """asyncua's own side of the only subscription."""
    [only] = server.internal.subscription_service.subscriptions.values()
    return only


# Values


async def test_reports_every_type_at_its_source_time(server: OpcuaServer) -> None:
    nodes = {
        "Temperature": ("float64", 71.5),
        "Pressure": ("float32", 2.5),
        "Level": ("int", -7),
        "Count": ("uint", 42),
        "Total": ("uint", 2**63 + 1),
        "Running": ("bool", True),
        "Recipe": ("string", "Nougat"),
        "Label": ("string", "Presse"),
        "Since": ("string", "2026-03-01T12:00:00.250000Z"),
        "Code": ("string", "01ab"),
    }
    for mode in ("subscribe", "poll"):
        of = group({name: (f"nsu=urn:plant:press;s={name}", kind) for name, (kind, _) in nodes.items()}, mode)
        plc = driver(server.url, of)
        await plc.connect()
        seen = await read_all(plc, of)
        assert {name: each.value for name, each in seen.items()} == {name: value for name, (_, value) in nodes.items()}
        assert {(each.time_us, each.quality, each.reason) for each in seen.values()} == {(NOON_US, 0, "")}
        await plc.close()


async def test_reports_every_change_in_order(server: OpcuaServer) -> None:
    of = group({"temperature": PRESS_TEMPERATURE, "marker": MARKER})
    plc = driver(server.url, of)
    await plc.connect()
    await read_all(plc, of)
    for step in range(1, 8):
        await server.set("Temperature", float(step), source=after(step / 10))
        if step % 3 == 0:
            await asyncio.sleep(0.06)  # some of them come in one message, some in another
    seen = await read_to_marker(server, plc, of, 1)
    assert [(each.value, each.time_us) for each in seen] == [
        (float(step), NOON_US + step * 100_000) for step in range(1, 8)
    ]
    await plc.close()


async def test_status_passes_through_with_a_reason(server: OpcuaServer) -> None:
    of = group({"temperature": PRESS_TEMPERATURE, "marker": MARKER})
    plc = driver(server.url, of)
    await plc.connect()
    await read_all(plc, of)
    await server.set("Temperature", None, status=SENSOR_FAILURE, source=after(1))
    await server.set("Temperature", 5.0, status=0x40900000, source=after(2))
    await server.set("Temperature", 6.0, status=0x00000480, source=after(3))
    bad, uncertain, overflow, *rest = await read_to_marker(server, plc, of, 1)
    assert (bad.value, bad.quality) == (None, SENSOR_FAILURE)
    assert bad.reason == "node nsu=urn:plant:press;s=Temperature: the server reports BadSensorFailure (0x808C0000)"
    assert (uncertain.value, uncertain.quality) == (5.0, 0x40900000)
    assert "UncertainLastUsableValue" in uncertain.reason
    assert (overflow.value, overflow.quality, overflow.reason) == (6.0, 0x00000480, "")
    assert rest == []
    await plc.close()


@pytest.mark.parametrize("mode", ["subscribe", "poll"])
async def test_every_tag_that_fails_is_reported_once_with_its_reason(server: OpcuaServer, mode: str) -> None:
    of = group(
        {
            "good": PRESS_TEMPERATURE,
            "unknown": ("nsu=urn:plant:press;s=Nowhere", "float64"),
            "elsewhere": ("nsu=urn:plant:elsewhere;s=Temperature", "float64"),
            "index": ("ns=9;s=Temperature", "float64"),
            "folder": ("i=85", "float64"),
            "array": ("nsu=urn:plant:press;s=Curve", "float64"),
            "text": ("nsu=urn:plant:press;s=Recipe", "float64"),
            "broken": ("nsu=urn:plant:press;s=Broken", "float64"),
            "marker": MARKER,
        },
        mode,
    )
    plc = driver(server.url, of)
    await plc.connect()
    seen = await read_all(plc, of)
    assert seen["good"].value == 71.5
    assert (seen["unknown"].quality, seen["unknown"].reason) == (
        Quality.BAD_NODE_ID_UNKNOWN,
        "node nsu=urn:plant:press;s=Nowhere does not exist on the server; check its spelling and its namespace",
    )
    assert "no namespace urn:plant:elsewhere; check the URI" in seen["elsewhere"].reason
    assert "no index 9" in seen["index"].reason
    assert "no variable" in seen["folder"].reason
    assert (seen["array"].quality, "Double[]" in seen["array"].reason) == (Quality.BAD_TYPE_MISMATCH, True)
    assert "String, the tag is float64; set its type to string" in seen["text"].reason
    assert seen["broken"].quality == SENSOR_FAILURE
    assert {name for name, each in seen.items() if each.value is not None} == {"marker", "good"}
    assert await read_to_marker(server, plc, of, 1) == []
    await plc.close()


async def test_a_server_without_room_for_subscriptions(server: OpcuaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.internal, "max_subscriptions", 0)
    of = group({"temperature": PRESS_TEMPERATURE})
    plc = driver(server.url, of)
    await plc.connect()
    [only] = await read_once(plc, of)
    assert "BadTooManySubscriptions" in only.reason
    await plc.close()


# Polling, limits


async def test_a_poll_reports_what_changed(server: OpcuaServer) -> None:
    of = group({"temperature": PRESS_TEMPERATURE, "broken": ("nsu=urn:plant:press;s=Broken", "float64")}, "poll")
    plc = driver(server.url, of)
    await plc.connect()
    assert len(await read_once(plc, of)) == 2
    assert await read_once(plc, of) == []
    await server.set("Temperature", 71.5, source=after(1))
    [again] = await read_once(plc, of)
    assert (again.tag, again.value, again.time_us) == ("temperature", 71.5, NOON_US + 1_000_000)
    await server.set("Broken", 1.0, source=NOON)
    [healed] = await read_once(plc, of)
    assert (healed.tag, healed.value, healed.quality) == ("broken", 1.0, 0)
    await plc.close()


async def test_a_poll_without_source_times_reports_every_answer(server: OpcuaServer) -> None:
    of = group({"temperature": PRESS_TEMPERATURE}, "poll")
    plc = driver(server.url, of)
    await plc.connect()
    await server.set("Temperature", 5.0, source=None)
    [first] = await read_once(plc, of)
    [second] = await read_once(plc, of)
    assert first.value == second.value == 5.0
    assert NOON_US < first.time_us <= second.time_us
    await plc.close()


async def test_reads_in_portions_of_the_smaller_limit(server: OpcuaServer) -> None:
    of = items(25, "poll")
    await server.announce(10, 0)
    for cap, sizes in ((200, [10, 10, 5]), (7, [7, 7, 7, 4])):
        plc = driver(server.url, of, max_nodes_per_read=cap)
        await plc.connect()
        server.read_sizes.clear()
        before = plc.requests
        seen = await read_once(plc, of)
        assert [each.value for each in seen] == list(range(25))
        assert server.read_sizes == sizes
        assert plc.requests - before == len(sizes)
        await plc.close()


async def test_a_limit_that_nobody_announced_is_learned_and_kept(server: OpcuaServer) -> None:
    of = items(25, "poll")
    server.limit_reads(7)
    plc = driver(server.url, of)
    await plc.connect()
    server.read_sizes.clear()
    assert [each.value for each in await read_once(plc, of)] == list(range(25))
    assert server.read_sizes == [25, 12, 6, 6, 6, 6, 1]
    since_us = await reconnect(plc)
    server.read_sizes.clear()
    again = await read_once(plc, of)
    assert [each.value for each in again] == list(range(25))
    assert all(each.time_us >= since_us for each in again)
    assert await read_once(plc, of) == []
    assert server.read_sizes == [6, 6, 6, 6, 1] * 2
    await plc.close()


async def test_monitors_in_portions_of_the_limit(server: OpcuaServer) -> None:
    of = items(25, "subscribe")
    await server.announce(0, 10)
    plc = driver(server.url, of)
    await plc.connect()
    assert server.item_sizes == [10, 10, 5]
    assert sorted(each.value or 0 for each in (await read_all(plc, of)).values()) == list(range(25))
    await plc.close()


async def test_the_servers_queue_is_long_enough_for_one_period(server: OpcuaServer) -> None:
    fast = opcua.GroupSettings(sampling_ms=1, queue_size=3)
    of = Group("press", "fast", 0.05, group({"temperature": PRESS_TEMPERATURE}).tags, fast)
    plc = driver(server.url, of)
    await plc.connect()
    [item] = subscription(server).monitored_item_srv._monitored_items.values()
    assert item.queue_size == 50
    await plc.close()


# Connections that end


async def test_a_reconnect_states_each_tag_once_and_misses_nothing_newer(server: OpcuaServer) -> None:
    tags = {"temperature": PRESS_TEMPERATURE, "marker": MARKER}
    watched, polled = group(tags), group({"level": ("nsu=urn:plant:press;s=Level", "int")}, "poll", "slow")
    plc = driver(server.url, watched, polled)
    await plc.connect()
    await read_all(plc, watched)
    assert len(await read_once(plc, polled)) == 1
    await server.cut()
    assert "closed the connection" in str(await read_until_away(plc, watched))
    await server.restore()
    since_us = await reconnect(plc)
    [temperature] = await read_to_marker(server, plc, watched, 1)
    [level] = await read_once(plc, polled)
    assert (temperature.value, level.value) == (71.5, -7)
    assert min(temperature.time_us, level.time_us) >= since_us
    assert await read_to_marker(server, plc, watched, 2) == []
    assert await read_once(plc, polled) == []
    await server.cut()
    await read_until_away(plc, watched)
    await server.set("Temperature", 80.0, source=after(60))
    await server.set("Level", 3, source=after(60))
    await server.restore()
    since_us = await reconnect(plc)
    for changed, again in (await read_to_marker(server, plc, watched, 3), await read_once(plc, polled)):
        assert (changed.value, changed.time_us) == (again.value, NOON_US + 60_000_000)
        assert again.value == {"temperature": 80.0, "level": 3}[again.tag]
        assert again.time_us >= since_us
    await server.set("Temperature", 81.0, source=datetime.now(UTC))
    await server.set("Level", 4, source=datetime.now(UTC))
    assert [each.value for each in await read_to_marker(server, plc, watched, 4)] == [81.0]
    assert [each.value for each in await read_once(plc, polled)] == [4]
    await plc.close()


async def test_after_a_reconnect_the_newest_reading_is_the_last_one_though_the_servers_clock_is_late(
    server: OpcuaServer,
) -> None:
    of = group({"temperature": PRESS_TEMPERATURE, "marker": MARKER})
    plc = driver(server.url, of)
    await plc.connect()
    await read_all(plc, of)
    since_us = await reconnect(plc)
    for step in range(1, 4):
        await server.set("Temperature", float(step), source=after(step))
        seen = await read_until(plc, of, has(float(step)))
        said = [each for each in seen if each.tag == "temperature"]
        assert (said[-2].value, said[-2].time_us) == (step, NOON_US + step * 1_000_000)
        assert said[-1].value == step
        assert said[-1].time_us >= since_us
    await plc.close()


@pytest.mark.parametrize("mode", ["subscribe", "poll"])
async def test_what_the_poller_declared_bad_is_good_again_after_an_outage(
    server: OpcuaServer, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr(poller, "RETRY_S_FIRST", 0.05)
    tags = {
        "temperature": PRESS_TEMPERATURE,
        "recipe": ("nsu=urn:plant:press;s=Recipe", "string"),
        "broken": ("nsu=urn:plant:press;s=Broken", "float64"),
        "unknown": ("nsu=urn:plant:press;s=Nowhere", "float64"),
        "marker": MARKER,
    }
    of, seen = group(tags, mode), list[Seen]()
    plc = driver(server.url, of)
    run = poller.Poller("plc-1", plc, [of], lambda scan: seen.extend(seen_in(scan)))
    task = asyncio.create_task(run.run(), name="poller")
    await until(lambda: len(seen) == 5)
    before = sorted(seen)
    seen.clear()
    await server.cut()
    await until(lambda: run.state.failures > 1)  # found away, and still away
    assert sorted((each.tag, each.quality) for each in seen) == sorted((tag, Quality.BAD_NOT_CONNECTED) for tag in tags)
    away_us = max(each.time_us for each in seen)
    await server.restore()
    await until(lambda: len(seen) >= 10)
    await server.set("Item0", 1, source=datetime.now(UTC))
    await until(lambda: any(each.value == 1 for each in seen))
    again = sorted(seen[5:-1])
    assert [each._replace(time_us=0) for each in again] == [each._replace(time_us=0) for each in before]
    assert all(each.time_us >= away_us for each in again)
    assert run.state.reason.startswith("2 tags fail")
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("mode", ["subscribe", "poll"])
async def test_a_start_states_what_never_changes_as_of_now(server: OpcuaServer, mode: str) -> None:
    """The agent was restarted while the server came back: what declared the tags bad was the agent before it."""
    of = group({"temperature": PRESS_TEMPERATURE}, mode)
    plc = started(server.url, of)
    declared_bad_us = time.time_ns() // 1000
    await plc.connect()
    seen = await read_until(plc, of, lambda seen: len(seen) >= 2)
    assert [(each.value, each.quality) for each in seen] == [(71.5, 0), (71.5, 0)]
    assert seen[0].time_us == NOON_US
    assert seen[1].time_us >= declared_bad_us
    assert await read_once(plc, of) == []
    await plc.close()


async def test_what_had_arrived_before_a_cut_is_read_first(server: OpcuaServer) -> None:
    of = group({"temperature": PRESS_TEMPERATURE})
    plc = driver(server.url, of)
    await plc.connect()
    await until(lambda: len(plc._inboxes["fast"]) > 0)
    await server.cut()
    [kept] = await read_once(plc, of)
    assert kept.value == 71.5
    await read_until_away(plc, of)
    await plc.close()


async def test_what_arrived_is_kept_over_a_reconnect(server: OpcuaServer) -> None:
    of = group({"temperature": PRESS_TEMPERATURE, "marker": MARKER})
    plc = driver(server.url, of)
    await plc.connect()
    await until(lambda: len(plc._inboxes["fast"]) == 2)
    await plc.close()
    with pytest.raises(DeviceAway, match="not connected"):
        await plc.read(of)
    since_us = await reconnect(plc)
    kept, again = await read_to_marker(server, plc, of, 1)
    assert (kept.value, kept.time_us, again.value) == (71.5, NOON_US, 71.5)
    assert again.time_us >= since_us
    await plc.close()


async def test_swapped_namespaces_never_give_another_tags_value(server: OpcuaServer) -> None:
    tags = {"press": PRESS_TEMPERATURE, "oven": OVEN_TEMPERATURE, "by_index": ("ns=2;s=Temperature", "float64")}
    watched, polled = group(tags), group(tags, "poll", "slow")
    plc = driver(server.url, watched, polled)
    await plc.connect()
    for of in (watched, polled):
        seen = await read_all(plc, of)
        assert {name: each.value for name, each in seen.items()} == {"press": 71.5, "oven": 900.0, "by_index": 71.5}
    await server.cut()
    await server.swap_namespaces(press=72.5, oven=901.0, source=after(1))
    await server.restore()
    await read_until_away(plc, watched)
    await plc.connect()
    for of in (watched, polled):
        seen = await read_all(plc, of)
        assert {name: each.value for name, each in seen.items()} == {"press": 72.5, "oven": 901.0, "by_index": 72.5}
    await plc.close()


async def test_a_namespace_that_is_gone_spoils_only_its_own_tags(server: OpcuaServer) -> None:
    of = group({"press": PRESS_TEMPERATURE, "oven": OVEN_TEMPERATURE})
    await server.forget_press()
    plc = driver(server.url, of)
    await plc.connect()
    seen = await read_all(plc, of)
    assert (seen["press"].value, seen["press"].quality) == (None, Quality.BAD_NODE_ID_UNKNOWN)
    assert "no namespace urn:plant:press" in seen["press"].reason
    assert seen["oven"].value == 900.0
    await plc.close()


@pytest.mark.parametrize("mode", ["subscribe", "poll"])
async def test_a_line_that_went_dead_is_found(server: OpcuaServer, mode: str) -> None:
    of = group({"temperature": PRESS_TEMPERATURE}, mode)
    before = sockets()
    async with Wire(server.port) as wire:
        plc = driver(f"opc.tcp://127.0.0.1:{wire.port}/press", of, timeout_s=0.5)
        await plc.connect()
        await read_all(plc, of)
        wire.freeze()
        error = await read_until_away(plc, of)
        assert isinstance(error, DeviceTimeout)
        assert str(error).endswith("no answer within 0.5 s; check the server's load and the network.")
        with pytest.raises(DeviceAway, match=r"says nothing within 0\.5 s"):
            await plc.connect()
        await plc.close()
        assert client_tasks() == []
    await until(lambda: sockets() <= before and not server.connections)


async def test_a_cut_line_leaves_no_task_and_no_socket(server: OpcuaServer) -> None:
    of = group({"temperature": PRESS_TEMPERATURE})
    before = sockets()
    async with Wire(server.port) as wire:
        plc = driver(f"opc.tcp://127.0.0.1:{wire.port}/press", of)
        for _ in range(3):
            await plc.connect()
            asked = plc.requests
            wire.cut()
            await read_until_away(plc, of)
            assert plc.requests <= asked + 1  # noticed, not found by asking: at most a publish request more
        await plc.close()
        assert client_tasks() == []
    await until(lambda: sockets() <= before and not server.connections)


@pytest.mark.parametrize(
    "words",
    [b"\xff" * 64, b"HTTP/1.1 400 Bad Request\r\n\r\n", b"MSGF\x08\0\0\0"],
    ids=["noise", "http", "empty"],
)
async def test_nonsense_on_the_line_ends_the_connection_and_nothing_else(server: OpcuaServer, words: bytes) -> None:
    of = group({"temperature": PRESS_TEMPERATURE})
    async with Wire(server.port) as wire:
        plc = driver(f"opc.tcp://127.0.0.1:{wire.port}/press", of, timeout_s=0.3)
        await plc.connect()
        await read_all(plc, of)
        wire.say(words)
        await read_until_away(plc, of)
        since_us = await reconnect(plc)
        [again] = await read_until(plc, of, lambda seen: len(seen) > 0)
        assert again.value == 71.5
        assert again.time_us >= since_us
        await server.set("Temperature", 80.0, source=datetime.now(UTC))
        [changed] = await read_until(plc, of, lambda seen: len(seen) > 0)
        assert changed.value == 80.0
        await plc.close()


async def test_a_message_without_an_end_is_not_waited_for(server: OpcuaServer) -> None:
    of = group({"temperature": PRESS_TEMPERATURE})
    async with Wire(server.port) as wire:
        plc = driver(f"opc.tcp://127.0.0.1:{wire.port}/press", of)
        await plc.connect()
        await read_all(plc, of)
        wire.say(b"MSGF\xff\xff\xff\xff" + bytes(2 << 20))
        assert "a message without an end" in str(await read_until_away(plc, of))
        await plc.close()


async def test_a_connect_may_be_cancelled_anywhere(server: OpcuaServer) -> None:
    of = group({"temperature": PRESS_TEMPERATURE})
    plc = driver(server.url, of)
    await plc.connect()
    await plc.close()
    before = sockets()
    for turns in range(0, 80, 3):
        task = asyncio.create_task(plc.connect())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await plc.close()
        assert client_tasks() == []
    await until(lambda: sockets() <= before and not server.connections)


async def test_a_subscription_that_fell_silent_is_found(server: OpcuaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opcua_subscription, "KEEP_ALIVE_S", 0.1)
    of = group({"temperature": PRESS_TEMPERATURE})
    plc = driver(server.url, of, timeout_s=0.5)
    await plc.connect()
    await read_all(plc, of)
    service = server.internal.subscription_service
    await service.delete_subscriptions(list(service.subscriptions))
    error = await read_until_away(plc, of)
    assert isinstance(error, DeviceTimeout)
    assert "the subscription fell silent" in str(error)
    await plc.close()


async def test_a_quiet_subscription_is_no_silent_one(server: OpcuaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opcua_subscription, "KEEP_ALIVE_S", 0.1)
    of = group({"temperature": PRESS_TEMPERATURE})
    plc = driver(server.url, of, timeout_s=1)
    await plc.connect()
    await read_all(plc, of)
    before = plc.requests
    while plc.requests < before + 15:  # keep-alives, each answered with the next publish request
        assert await read_once(plc, of) == []
        await asyncio.sleep(0.01)
    await plc.close()


async def test_a_subscription_that_the_server_ends_is_found(
    server: OpcuaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opcua_subscription, "KEEP_ALIVE_S", 0.1)
    of = group({"temperature": PRESS_TEMPERATURE})
    plc = driver(server.url, of)
    await plc.connect()
    await read_all(plc, of)
    ending = StatusCode(UInt32(StatusCodes.BadTimeout))
    await subscription(server).monitored_item_srv.trigger_statuschange(ending)
    assert "the server ended the subscription with BadTimeout" in str(await read_until_away(plc, of))
    await plc.close()


async def test_a_lost_notification_is_said_and_the_values_fetched_anew(server: OpcuaServer) -> None:
    of = group({"temperature": PRESS_TEMPERATURE, "marker": MARKER})
    plc = driver(server.url, of)
    await plc.connect()
    await read_all(plc, of)
    subscription(server)._notification_seq += 2  # as if two messages had vanished
    await server.set("Item0", 7, source=after(1))
    seen = await read_until(plc, of, lambda seen: any(each.value == 7 for each in seen))
    assert [(each.tag, each.quality) for each in seen] == [
        ("temperature", BAD_DATA_LOST),
        ("marker", BAD_DATA_LOST),
        ("marker", 0),
    ]
    assert "notifications 2 to 3 of the server were lost" in seen[0].reason
    assert "notifications 2 to 3" in str(await read_until_away(plc, of))
    since_us = await reconnect(plc)
    fetched, again = await read_to_marker(server, plc, of, 8)
    assert (fetched.value, fetched.time_us, again.value) == (71.5, NOON_US, 71.5)
    assert again.time_us >= since_us
    await plc.close()


async def test_the_channel_is_renewed_in_time(server: OpcuaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opcua_session, "CHANNEL_LIFETIME_S", 1.0)
    of = group({"temperature": PRESS_TEMPERATURE})
    plc = driver(server.url, of)
    await plc.connect()
    assert server._listener is not None
    [client] = server._listener.clients
    assert client.processor is not None
    await read_all(plc, of)
    channel = client.processor._connection
    first = channel.security_token.TokenId
    for step in range(1, 400):
        await server.set("Temperature", float(step), source=after(step))
        [changed] = await read_until(plc, of, lambda seen: len(seen) > 0)
        assert changed.value == step
        if channel.security_token.TokenId == first + 3:
            break
    assert channel.security_token.TokenId == first + 3
    await plc.close()


async def test_a_node_that_the_server_is_slow_with_is_reported_as_waiting(
    server: OpcuaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish, held = InternalSubscription._pop_triggered_datachanges, True

    def hold(subscription: InternalSubscription, result: Any) -> None:
        if not held:
            publish(subscription, result)

    monkeypatch.setattr(InternalSubscription, "_pop_triggered_datachanges", hold)
    of = group({"temperature": PRESS_TEMPERATURE})
    plc = driver(server.url, of, timeout_s=0.3)
    await plc.connect()
    [waiting] = await read_until(plc, of, lambda seen: len(seen) > 0)
    assert waiting.quality == Quality.BAD_WAITING_FOR_INITIAL_DATA
    assert "has sent nothing for it yet" in waiting.reason
    held = False
    came, again = await read_until(plc, of, lambda seen: len(seen) > 0)
    assert (came.value, came.time_us) == (71.5, NOON_US)
    assert (again.value, again.quality, again.time_us) == (71.5, 0, waiting.time_us)  # later in order: it prevails
    await plc.close()


async def test_long_periods_get_a_session_that_outlasts_them(server: OpcuaServer) -> None:
    of = Group("press", "slow", 100.0, (), None)
    plc = driver(server.url, of)
    await plc.connect()
    [session] = server.internal._external_sessions.values()
    assert session.session_timeout == 300
    await plc.close()


# Connecting


async def refused(plc: opcua.OpcuaDriver, kind: type[Exception], says: str) -> None:
    """Connecting fails with one sentence, and leaves nothing behind."""
    with pytest.raises(kind) as caught:
        await plc.connect()
    assert type(caught.value) is kind
    text = str(caught.value)
    assert says in text
    assert text.startswith("plc-1 (opcua opc.tcp://") and text.endswith(".") and "\n" not in text
    assert client_tasks() == []
    with pytest.raises(DeviceAway, match="not connected"):
        await plc.read(group({}))


async def test_nobody_listens(unused_tcp_port: int) -> None:
    await refused(driver(f"opc.tcp://127.0.0.1:{unused_tcp_port}", group({})), DeviceAway, "check the port")
    await refused(driver(f"opc.tcp://localhost:{unused_tcp_port}", group({})), DeviceAway, "check the port")


async def test_no_host_is_called_that() -> None:
    await refused(driver("opc.tcp://plc..local:4840", group({})), DeviceAway, "host name is not known")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "check that this port is an OPC UA server's"),
        (b"\x00" * 64, "check that this port is an OPC UA server's"),
        (b"", "check that this port is an OPC UA server's"),
        (None, "says nothing within 0.3 s"),
    ],
)
async def test_another_kind_of_server_listens(answer: bytes | None, says: str) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if answer is None:
            await reader.read()
        else:
            writer.write(answer)
        writer.close()

    before = sockets()
    async with await asyncio.start_server(talk, "127.0.0.1", 0) as stranger:
        port = stranger.sockets[0].getsockname()[1]
        await refused(driver(f"opc.tcp://127.0.0.1:{port}", group({}), timeout_s=0.3), DeviceAway, says)
    await until(lambda: sockets() <= before)


async def test_user_and_password(server: OpcuaServer, tmp_path: Path) -> None:
    server.admit({"operator": "se cret"})
    of = group({"temperature": PRESS_TEMPERATURE})
    await refused(driver(server.url, group({})), DeviceRefused, "does not admit anonymous users")
    wrong = driver(server.url, group({}), username="operator", password="secret")
    await refused(wrong, DeviceRefused, "rejected user operator; check username and password")
    file = tmp_path / "password"
    by_file = driver(server.url, of, username="operator", password_file=str(file))
    await refused(by_file, DeviceRefused, "cannot be read")
    file.write_text("se cret\n")
    for plc in (by_file, driver(server.url, of, username="operator", password="se cret")):
        await plc.connect()
        assert (await read_all(plc, of))["temperature"].value == 71.5
        await plc.close()


async def test_all_sessions_are_taken(server: OpcuaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(InternalSession, "max_connections", 0)
    await refused(driver(server.url, group({})), DeviceAway, "close another client or raise its limit")
    await until(lambda: not server.connections and not server.sessions)


async def test_a_server_that_answers_something_else(server: OpcuaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(*_: Any) -> list[Any]:
        return []

    monkeypatch.setattr(InternalSession, "read", nothing)
    await refused(driver(server.url, group({})), DeviceAway, "gave 0 answers to 4 questions")


async def test_the_session_ends_with_the_connection(server: OpcuaServer) -> None:
    plc = driver(server.url, group({"temperature": PRESS_TEMPERATURE}), session_timeout_s=7)
    for _ in range(2):
        await plc.connect()
        [session] = server.internal._external_sessions.values()
        assert session.session_timeout == 7
        await plc.close()
        assert server.sessions == 0
