"""Arrays, structures, enumerations, time stamps, filters of OPC UA, against asyncua's own server over real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from asyncua import ua
from asyncua.ua.status_codes import StatusCodes

from agent import drivers, settings
from agent.poller import Poller
from agent.shaping import shaping
from protocols.field import opcua, opcua_session
from protocols.field.contract import DeviceAway, Group, Quality, Scan, Value, ValueType
from tests.support.opcua_server import OpcuaServer, opcua_server
from tests.support.programs import until, write_yaml

pytestmark = pytest.mark.timeout(40)  # no measurement: a test that waits in vain fails

Latest = dict[str, tuple[Value, int, str]]  # tag → value, quality, reason


@pytest.fixture
async def server() -> AsyncIterator[OpcuaServer]:
    async with opcua_server() as running:
        yield running


def tags(**given: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(
        opcua.tag(
            opcua.TagSettings.model_validate(
                {"name": name, **keys, "node": f"nsu=urn:plant:press;s={keys.get('node', name)}"}
            )
        )
        for name, keys in given.items()
    )


def group(mode: str, of: tuple[Any, ...], **options: object) -> Group:
    return Group("press", "fast", 0.05, of, opcua.GroupSettings.model_validate({"mode": mode, **options}))


def driver(url: str, of: Group, **more: object) -> opcua.OpcuaDriver:
    return opcua.driver("plc-1", opcua.Settings.model_validate({"url": url, "timeout_s": 10.0, **more}), [of])


async def read_until(plc: opcua.OpcuaDriver, of: Group, enough: Callable[[Latest], bool]) -> Latest:
    latest: Latest = {}
    while len(latest) < len(of.tags) or not enough(latest):
        for scan in await plc.read(of):
            indexes = range(len(scan)) if scan.indexes is None else scan.indexes
            for at, value, code in zip(indexes, scan.values, scan.quality or [0] * len(scan), strict=True):
                latest[of.tags[at].name] = value, code, scan.reasons.get(at, "")
        await asyncio.sleep(0.01)
    return latest


@pytest.mark.parametrize("mode", ["subscribe", "poll"])
async def test_parts_of_arrays_and_structures_are_tags_of_their_own(server: OpcuaServer, mode: str) -> None:
    expected: dict[str, tuple[dict[str, Any], Value]] = {
        "second": ({"node": "Curve", "part": "[1]", "type": "float64"}, 2.0),
        "corner": ({"node": "Matrix", "part": "[1][2]", "type": "int"}, 6),
        "name": ({"node": "Robot", "part": "Name", "type": "string"}, "Anna"),
        "speed": ({"node": "Robot", "part": "Axes[0].Speed", "type": "float64"}, 1.5),
        "axis_state": ({"node": "Robot", "part": "Axes[0].State", "type": "int"}, 1),
        "warning": ({"node": "Robot", "part": "Axes[1].Warning", "type": "string"}, "hot"),
        "home": ({"node": "Robot", "part": "Home.Speed", "type": "float32"}, 0.5),
        "limit": ({"node": "Robot", "part": "Limits[0]", "type": "int"}, -1),
        "since": ({"node": "Robot", "part": "Since", "type": "string"}, "2026-03-01T12:00:00.250000Z"),
        "id": ({"node": "Robot", "part": "Id", "type": "string"}, "00000000-0000-0000-0000-000000000005"),
        "of_array": ({"node": "Axes", "part": "[1].Speed", "type": "float64"}, 2.5),
        "high": ({"node": "Range", "part": "High", "type": "float64"}, 99.0),
        "state": ({"node": "State", "type": "string"}, "Running"),
        "state_number": ({"node": "State", "type": "int"}, 1),
        "last_state": ({"node": "States", "part": "[0]", "type": "string"}, "Fault"),
        "curve": ({"node": "Curve", "type": "string"}, "[1.0,2.0]"),
    }
    of = group(mode, tags(**{name: keys for name, (keys, _) in expected.items()}))
    plc = driver(server.url, of)
    await plc.connect()
    latest = await read_until(plc, of, lambda _: True)
    assert {name: (value, code) for name, (value, code, _) in latest.items()} == {
        name: (value, Quality.GOOD) for name, (_, value) in expected.items()
    }
    await plc.close()


async def test_a_whole_structure_as_text(server: OpcuaServer) -> None:
    of = group("poll", tags(robot={"node": "Robot", "type": "string"}))
    plc = driver(server.url, of)
    await plc.connect()
    value, code, _ = (await read_until(plc, of, lambda _: True))["robot"]
    assert code == 0
    assert json.loads(str(value)) == {
        "Name": "Anna",
        "Axes": [{"Speed": 1.5, "State": 1, "Warning": None}, {"Speed": 2.5, "State": 0, "Warning": "hot"}],
        "Home": {"Speed": 0.5, "State": 0, "Warning": None},
        "Limits": [-1, 7],
        "Since": "2026-03-01T12:00:00.250000+00:00",
        "Id": "00000000-0000-0000-0000-000000000005",
    }
    await plc.close()


async def test_a_part_that_is_not_there_is_bad_with_what_is(server: OpcuaServer) -> None:
    of = group(
        "subscribe",
        tags(
            member={"node": "Robot", "part": "Axes[0].Sped", "type": "float64"},
            element={"node": "Robot", "part": "Axes[2].Speed", "type": "float64"},
            whole={"node": "Robot", "type": "float64"},
            simple={"node": "Temperature", "part": "[0]", "type": "float64"},
        ),
    )
    plc = driver(server.url, of)
    await plc.connect()
    latest = await read_until(plc, of, lambda _: True)
    assert {code for _, code, _ in latest.values()} == {Quality.BAD_TYPE_MISMATCH}
    assert "Axes[0] has no member Sped, but Speed, State, Warning" in latest["member"][2]
    assert "Axes has 2 elements, so there is no [2]" in latest["element"][2]
    assert "take one member with part: Name, or all of them with type: string" in latest["whole"][2]
    assert "is no array" in latest["simple"][2]
    await plc.close()


async def test_tags_of_one_node_share_one_item(server: OpcuaServer) -> None:
    of = group(
        "subscribe", tags(**{f"t{at}": {"node": "Curve", "part": f"[{at}]", "type": "float64"} for at in (0, 1)})
    )
    plc = driver(server.url, of)
    await plc.connect()
    assert server.item_sizes == [1]
    await server.set("Curve", [7.0, 8.0], source=datetime.now(UTC))
    latest = await read_until(plc, of, lambda latest: latest["t1"][0] == 8.0)
    assert latest["t0"][0] == 7.0
    await plc.close()


def monitored(server: OpcuaServer) -> list[Any]:
    [only] = server.internal.subscription_service.subscriptions.values()
    return list(only.monitored_item_srv._monitored_items.values())


async def test_a_deadband_leaves_out_small_changes(server: OpcuaServer) -> None:
    of = group(
        "subscribe",
        tags(
            temperature={"node": "Temperature", "type": "float64", "deadband": 2.0},
            marker={"node": "Item0", "type": "int"},
        ),
    )
    plc = driver(server.url, of)
    await plc.connect()
    await read_until(plc, of, lambda _: True)
    seen = []
    for step, value in enumerate((72.0, 73.0, 76.0)):
        await server.set("Temperature", value, source=datetime.now(UTC))
        await server.set("Item0", 100 + step, source=datetime.now(UTC))
        latest: Latest = {}
        while latest.get("marker", (0,))[0] != 100 + step:
            for scan in await plc.read(of):
                for at, got in zip(scan.indexes or (), scan.values, strict=True):
                    latest[of.tags[at].name] = got, 0, ""
            await asyncio.sleep(0.01)
        seen.append(latest.get("temperature", (None,))[0])
    assert seen == [None, None, 76.0]
    await plc.close()


async def test_an_unchanged_value_is_stated_again_and_a_deadband_applied_once(
    server: OpcuaServer, tmp_path: Path
) -> None:
    """Configuration → server-side deadband → poller → what would be stored."""
    tag = {"name": "t", "node": "nsu=urn:plant:press;s=Temperature", "type": "float64", "deadband": 2.0}
    silent = {"name": "s", "node": "nsu=urn:plant:press;s=Pressure", "type": "float64", "max_silence_s": 0.2}
    document = {
        "gateway": {"thing": "gw-1", "tenant": "acme", "province": "north", "plant": "mill"},
        "broker": {"host": "127.0.0.1"},
        "devices": [
            {
                "name": "press",
                "machine": "press-1",
                "protocol": "opcua",
                "url": server.url,
                "timeout_s": 10.0,
                "groups": [{"period_s": 0.05, "tags": [tag, silent]}],
            }
        ],
    }
    [device] = settings.read(write_yaml(tmp_path / "agent.yaml", document), environ={}).devices
    plc = drivers.make(device, device.groups, tmp_path)
    told: dict[int, list[tuple[Value, int]]] = {0: [], 1: []}

    def take(scan: Scan) -> None:
        for at, value in zip(range(2) if scan.indexes is None else scan.indexes, scan.values, strict=True):
            told[at].append((value, scan.time_us))

    poller = Poller("press", plc, device.groups, take, shape=shaping(device, {}, plc).of)
    polling = asyncio.create_task(poller.run(), name="polling")
    await until("the value is stated again, and again", lambda: len(told[1]) >= 4)
    begun_with = told[0][-1][0]
    assert isinstance(begun_with, float)
    for more in (1.0, 3.5):  # asyncua's server measures from the value before, not from the last that it reported
        await server.set("Temperature", begun_with + more, source=datetime.now(UTC))
        count = len(told[1])
        await until("time passes", lambda count=count: len(told[1]) >= count + 2)  # type: ignore[misc]  # no callback
    poller.stop()
    await polling
    assert len({value for value, _ in told[1]}) == 1
    times_us = [time_us for _, time_us in told[1]]
    assert times_us == sorted(set(times_us))
    assert [value for value, _ in told[0]] == [begun_with, begun_with + 3.5]


async def test_what_is_dropped_and_kept_is_asked_for(server: OpcuaServer) -> None:
    for discard in ("oldest", "newest"):
        of = group("subscribe", tags(a={"node": "Temperature", "type": "float64"}), discard=discard, queue_size=7)
        plc = driver(server.url, of)
        asked: list[ua.MonitoringParameters] = []
        create = server.internal.subscription_service.create_monitored_items

        async def spy(params: Any, *more: Any, create: Any = create, asked: Any = asked) -> Any:
            asked += [item.RequestedParameters for item in params.ItemsToCreate]
            return await create(params, *more)

        server.internal.subscription_service.create_monitored_items = spy
        try:
            await plc.connect()
        finally:
            server.internal.subscription_service.create_monitored_items = create
        assert [(each.DiscardOldest, each.QueueSize, each.SamplingInterval) for each in asked] == [
            (discard == "oldest", 7, 50.0)
        ]
        await plc.close()


# Time stamps


@pytest.mark.parametrize("ahead", [timedelta(days=-9000), timedelta(hours=3)])
async def test_a_clock_out_of_line_is_not_believed(
    server: OpcuaServer, ahead: timedelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opcua_session, "CLOCK_S", 0.0)
    server.ahead = ahead
    await server.set("Temperature", 5.0, source=datetime.now(UTC) + ahead)
    of = group("poll", tags(t={"node": "Temperature", "type": "float64"}))
    plc = driver(server.url, of)
    before = datetime.now(UTC)
    await plc.connect()
    [*_, scan] = await plc.read(of)
    after = datetime.now(UTC)
    assert list(scan.values) == [5.0]
    assert scan.quality == [Quality.UNCERTAIN]
    assert "the server's clock is about" in scan.reasons[0]
    assert before.timestamp() - 5 <= scan.time_us / 1e6 <= after.timestamp()
    server.ahead = timedelta(0)
    await server.set("Temperature", 6.0, source=datetime.now(UTC))
    while True:
        scans = await plc.read(of)
        if scans and scans[-1].quality is None:
            break
    assert list(scans[-1].values) == [6.0]
    await plc.close()


async def test_a_time_in_the_future_and_one_that_goes_back_are_flagged(server: OpcuaServer) -> None:
    of = group("subscribe", tags(t={"node": "Temperature", "type": "float64"}))
    plc = driver(server.url, of)
    await plc.connect()
    await server.set("Temperature", 5.0, source=datetime.now(UTC) + timedelta(hours=1))
    latest = await read_until(plc, of, lambda latest: latest["t"][0] == 5.0)
    assert latest["t"][1] == Quality.UNCERTAIN and "lies in the future" in latest["t"][2]
    await server.set("Temperature", 6.0, source=datetime(2000, 1, 1, tzinfo=UTC))
    latest = await read_until(plc, of, lambda latest: latest["t"][0] == 6.0)
    assert latest["t"][1] == Quality.UNCERTAIN and "went back" in latest["t"][2]
    await server.set("Temperature", 7.0, source=datetime.now(UTC))
    latest = await read_until(plc, of, lambda latest: latest["t"][0] == 7.0)
    assert latest["t"][1:] == (Quality.GOOD, "")
    await plc.close()


# Over a restart of the agent


async def test_a_namespace_by_index_outlives_the_agent(server: OpcuaServer) -> None:
    """Agent and server restart together, and the server numbers its namespaces anew."""
    tag = opcua.tag(opcua.TagSettings(name="t", node="ns=2;s=Temperature", type=ValueType.FLOAT64))
    of = group("poll", (tag,))
    first = driver(server.url, of)
    await first.connect()
    kept = first.memory()
    assert kept is not None and first.memory() is None
    await first.close()
    await server.cut()
    await server.swap_namespaces(press=72.5, oven=901.0, source=datetime.now(UTC))
    await server.restore()
    second = driver(server.url, of)
    second.recall(json.loads(json.dumps(kept)))
    await second.connect()
    assert (await read_until(second, of, lambda _: True))["t"][0] == 72.5
    await second.close()
    await server.cut()
    await server.forget_press()
    await server.restore()
    third = driver(server.url, of)
    third.recall(kept)
    await third.connect()
    value, code, reason = (await read_until(third, of, lambda _: True))["t"]
    assert (value, code) == (None, Quality.BAD_NODE_ID_UNKNOWN)
    assert "no namespace urn:plant:press" in reason
    await third.close()
    elsewhere = driver(server.url + "/other", of)
    elsewhere.recall(kept)
    assert elsewhere._uris == {}
    for damaged in ({}, {"endpoint": server.url, "namespaces": {"x": "y"}}, {"endpoint": server.url, "namespaces": 1}):
        with pytest.raises((ValueError, TypeError, KeyError, AttributeError)):
            driver(server.url, of).recall(damaged)


async def test_every_tag_of_a_server_that_takes_no_more_items_is_accounted_for(
    server: OpcuaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """30,398 configured and 6,000 monitored without a word must not happen."""
    service = server.internal.subscription_service
    create = service.create_monitored_items

    async def few(params: Any, *more: Any) -> Any:
        results = await create(params, *more)
        for at, result in enumerate(results):
            if at >= 2:
                result.StatusCode = ua.StatusCode(ua.UInt32(StatusCodes.BadTooManyMonitoredItems))
        return results

    monkeypatch.setattr(service, "create_monitored_items", few)
    of = group("subscribe", tags(**{f"i{n}": {"node": f"Item{n}", "type": "int"} for n in range(5)}))
    plc = driver(server.url, of)
    await plc.connect()
    latest = await read_until(plc, of, lambda _: True)
    assert [latest[f"i{n}"][1] >> 31 for n in range(5)] == [0, 0, 1, 1, 1]
    assert "the server can monitor no more" in latest["i4"][2]
    await plc.close()
    with pytest.raises(DeviceAway):
        await plc.read(of)
