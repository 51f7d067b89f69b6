"""Several units behind one endpoint: a silent one costs its neighbours nothing, and all share one connection."""

from __future__ import annotations

import asyncio
import struct

import pytest

from protocols.field import modbus_driver
from protocols.field.contract import DeviceAway, DeviceRefused, DeviceTimeout, Group, Quality, Scan
from protocols.field.modbus import Settings, TagSettings, driver, tag
from protocols.field.modbus_driver import ModbusDriver
from protocols.field.modbus_units import PAUSE_S_FIRST, PAUSE_S_MAX, Units
from tests.support.modbus_servers import HOST, Exchange, scripted

SHORT_S = 0.2  # the time-out where units are silent; long enough for the others on a busy machine

CLIENTS = pytest.mark.parametrize("client", ["pymodbus", "lean"])


class Clock:
    """Stands for `time` in the driver, so that no test waits for a pause to end."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s

    def time_ns(self) -> int:
        return 1_800_000_000_000_000_000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(modbus_driver, "time", made)
    return made


class Gateway:
    """Units whose register holds their own unit id. `silent` do not answer, for `lost` the gateway does."""

    def __init__(self) -> None:
        self.silent: set[int] = set()
        self.lost: set[int] = set()
        self.asked: list[int] = []  # unit ids

    async def __call__(self, exchange: Exchange) -> None:
        unit_id = exchange.request[6]
        self.asked.append(unit_id)
        if unit_id in self.lost:
            await exchange.send(exchange.exception(11))
        elif unit_id not in self.silent:
            await exchange.send(exchange.answer(struct.pack(">H", unit_id)))

    def asked_since(self) -> list[int]:
        asked, self.asked = self.asked, []
        return asked


def group(*unit_ids: int, blocks: int = 1, name: str = "all") -> Group:
    tags = [
        TagSettings(name=f"u{unit_id}-{block}", address=f"holding:{100 * block}", unit_id=unit_id)
        for unit_id in unit_ids
        for block in range(blocks)
    ]
    return Group("bus", name, 1.0, tuple(map(tag, tags)))


def device(port: int, *groups: Group, name: str = "bus", timeout_s: float = 5.0, **more: object) -> ModbusDriver:
    settings = Settings.model_validate({"host": HOST, "port": port, "timeout_s": timeout_s, **more})
    return driver(name, settings, groups)


async def scan(bus: ModbusDriver, polled: Group) -> Scan:
    (found,) = await bus.read(polled)
    return found


@CLIENTS
async def test_a_silent_unit_backs_off_alone(clock: Clock, client: str) -> None:
    gateway, polled = Gateway(), group(1, 2, 3, blocks=2)
    async with scripted(gateway) as server:
        bus = device(server.port, polled, client=client, timeout_s=SHORT_S)
        await bus.connect()
        gateway.silent = {2}
        first = await scan(bus, polled)
        assert first.values == [1, 1, None, None, 3, 3]
        assert first.quality == [0, 0, Quality.BAD_TIMEOUT, Quality.BAD_TIMEOUT, 0, 0]
        assert first.reasons[2] == (
            f"bus (modbus {HOST}:{server.port}, unit 2): no answer within 0.2 s; "
            "check the unit id, and that the PLC is in RUN."
        )
        assert gateway.asked_since() == [1, 1, 2, 3, 3], "a silent unit is not asked for its other blocks"
        assert server.connections == 2, "after the time-out on a new connection"
        tries = []
        for second in range(64):
            found = await scan(bus, polled)
            assert found.values == [1, 1, None, None, 3, 3]
            assert found.reasons == first.reasons
            tries += [second] * gateway.asked_since().count(2)
            clock.now_s += 1
        assert tries == [1, 3, 7, 15, 31, 61]
        gateway.silent = set()
        clock.now_s += PAUSE_S_MAX
        assert (await scan(bus, polled)).values == [1, 1, 2, 2, 3, 3]
        assert (await scan(bus, polled)).quality is None
        await bus.close()


@CLIENTS
@pytest.mark.usefixtures("clock")
async def test_what_a_unit_answered_before_it_fell_silent_is_kept(client: str) -> None:
    async def first_only(exchange: Exchange) -> None:
        if exchange.number != 1:
            await exchange.send(exchange.answer(struct.pack(">H", exchange.request[6])))

    polled = group(1, 2, blocks=2)
    async with scripted(first_only) as server:
        bus = device(server.port, polled, client=client, timeout_s=SHORT_S)
        await bus.connect()
        found = await scan(bus, polled)
        assert list(found.values) == [None, None, 2, 2], "one series of requests, one fate"
        assert found.quality == [Quality.BAD_TIMEOUT, Quality.BAD_TIMEOUT, 0, 0]
        await bus.close()


@CLIENTS
async def test_a_unit_that_the_gateway_does_not_reach_backs_off_without_a_new_connection(
    clock: Clock, client: str
) -> None:
    gateway, polled = Gateway(), group(1, 2, 3, blocks=3)
    gateway.lost = {2}
    async with scripted(gateway) as server:
        bus = device(server.port, polled, client=client)
        await bus.connect()
        for asked in ([1, 1, 1, 2, 3, 3, 3], [1, 1, 1, 3, 3, 3]):
            found = await scan(bus, polled)
            assert found.values == [1, 1, 1, None, None, None, 3, 3, 3]
            assert found.quality is not None and found.quality[3] == Quality.BAD_TIMEOUT
            assert "unit 2" in found.reasons[3]
            assert "exception 11, gateway target device failed to respond" in found.reasons[3]
            assert gateway.asked_since() == asked
        gateway.lost = set()
        clock.now_s += PAUSE_S_FIRST
        assert (await scan(bus, polled)).values == [1, 1, 1, 2, 2, 2, 3, 3, 3]
        assert server.connections == 1
        await bus.close()


@CLIENTS
@pytest.mark.usefixtures("clock")
async def test_one_silent_unit_is_probed_in_a_read(client: str) -> None:
    gateway, polled = Gateway(), group(1, 2, 3, 4)
    gateway.silent = {2, 3, 4}
    async with scripted(gateway) as server:
        bus = device(server.port, polled, client=client, timeout_s=SHORT_S)
        await bus.connect()
        assert (await scan(bus, polled)).values == [1, None, None, None]
        modbus_driver.time.now_s += PAUSE_S_MAX  # type: ignore[attr-defined]  # the clock of this test
        gateway.asked_since()
        assert (await scan(bus, polled)).values == [1, None, None, None]
        assert gateway.asked_since() == [1, 2]
        await bus.close()


@CLIENTS
@pytest.mark.usefixtures("clock")
async def test_when_nobody_answers_the_device_is_away(client: str) -> None:
    gateway, fast, slow = Gateway(), group(1, name="fast"), group(1, 2, name="slow")
    async with scripted(gateway) as server:
        bus = device(server.port, fast, slow, client=client, timeout_s=SHORT_S)
        await bus.connect()
        gateway.silent = {1, 2}
        assert (await scan(bus, fast)).quality == [Quality.BAD_TIMEOUT], "unit 2 may be well"
        with pytest.raises(DeviceTimeout, match="unit 2"):
            await scan(bus, slow)
        with pytest.raises(DeviceAway, match="connect first"):
            await scan(bus, fast)
        gateway.silent = set()
        await bus.connect()
        assert (await scan(bus, slow)).values == [1, 2]
        await bus.close()


@CLIENTS
async def test_two_devices_at_one_endpoint_share_one_connection_and_ask_in_turn(client: str) -> None:
    outstanding, most = 0, 0

    async def counting(exchange: Exchange) -> None:
        nonlocal outstanding, most
        outstanding += 1
        most = max(most, outstanding)
        await asyncio.sleep(0)
        outstanding -= 1
        await exchange.send(exchange.answer(struct.pack(">H", exchange.request[6])))

    async with scripted(counting) as server:
        groups = [group(unit_id, blocks=3) for unit_id in range(1, 6)]
        buses = [device(server.port, one, name=f"d{at}", client=client) for at, one in enumerate(groups)]
        for bus in buses:
            await bus.connect()
        for _ in range(3):
            scans = await asyncio.gather(*map(scan, buses, groups))
            assert [list(found.values) for found in scans] == [[unit_id] * 3 for unit_id in range(1, 6)]
        assert (server.connections, most) == (1, 1)
        assert [bus.requests for bus in buses] == [9] * 5
        for bus in buses[1:]:
            await bus.close()
        assert list((await scan(buses[0], groups[0])).values) == [1] * 3, "the others' close is none of its business"
        await buses[0].close()


@CLIENTS
@pytest.mark.usefixtures("clock")
async def test_a_silent_device_does_not_take_its_neighbour_at_the_endpoint_away(client: str) -> None:
    gateway, groups = Gateway(), [group(1), group(2)]
    gateway.silent = {2}
    async with scripted(gateway) as server:
        one, other = (
            device(server.port, polled, name=f"d{polled.tags[0].name}", client=client, timeout_s=SHORT_S)
            for polled in groups
        )
        await one.connect()
        await other.connect()
        reading = asyncio.create_task(scan(other, groups[1]))
        await asyncio.sleep(0)
        assert (await scan(one, groups[0])).values == [1], "asked after the other's time-out, on a new connection"
        with pytest.raises(DeviceTimeout):
            await reading
        await one.close()
        await other.close()


@CLIENTS
async def test_one_that_leaves_does_not_close_what_another_is_opening(client: str) -> None:
    async with scripted(Gateway()) as server:
        one, other = (
            device(server.port, group(at), name=f"d{at}", client=client, connect_pause_s=0.02) for at in (1, 2)
        )
        await one.connect()
        await server.stop()
        while not one._endpoint.fault:  # noqa: ASYNC110 nobody tells when the loop has seen it
            await asyncio.sleep(0)
        connecting = asyncio.create_task(other.connect())
        while server.connections < 2:  # noqa: ASYNC110 the server says nothing when somebody connects
            await asyncio.sleep(0)
        await one.close()
        await connecting
        assert (await scan(other, group(2))).values == [2]
        await other.close()


@CLIENTS
async def test_a_lost_endpoint_is_lost_for_all_and_opened_again_once(client: str) -> None:
    gateway, groups = Gateway(), [group(1), group(2)]
    async with scripted(gateway) as server:
        buses = [device(server.port, polled, name=f"d{at}", client=client) for at, polled in enumerate(groups)]
        for bus in buses:
            await bus.connect()
        await server.stop()
        for bus, polled in zip(buses, groups, strict=True):
            with pytest.raises(DeviceAway):
                await scan(bus, polled)
        for bus in buses:
            await bus.connect()
        for bus, polled, expected in zip(buses, groups, [1, 2], strict=True):
            assert (await scan(bus, polled)).values == [expected]
        assert server.connections == 2
        for bus in buses:
            await bus.close()


async def test_devices_at_one_endpoint_must_agree_on_how_to_speak_with_it() -> None:
    async with scripted(Gateway()) as server:
        one = device(server.port, group(1), name="meter-1")
        other = device(server.port, group(2), name="meter-2", timeout_s=2.0, pause_s=0.1)
        await one.connect()
        with pytest.raises(DeviceRefused) as caught:
            await other.connect()
        assert str(caught.value) == (
            f"meter-2 (modbus {HOST}:{server.port}, unit 1): meter-1 uses the same endpoint with other settings "
            "(timeout_s, pause_s); give both devices the same."
        )
        await one.close()
        await other.connect()
        await other.close()


@CLIENTS
async def test_a_read_waits_for_three_silent_units_at_most(clock: Clock, client: str) -> None:
    gateway, polled = Gateway(), group(*range(1, 8))
    gateway.silent = {1, 2, 3, 4, 6}
    async with scripted(gateway) as server:
        bus = device(server.port, polled, client=client, timeout_s=SHORT_S)
        await bus.connect()
        found = await scan(bus, polled)
        assert found.values == [None] * 7
        assert found.quality == [Quality.BAD_TIMEOUT] * 3 + [Quality.BAD_WAITING_FOR_INITIAL_DATA] * 4
        assert "unit 4: not asked yet" in found.reasons[3]
        assert gateway.asked_since() == [1, 2, 3]
        assert (await scan(bus, polled)).values == [None, None, None, None, 5, None, 7]
        assert gateway.asked_since() == [4, 5, 6, 7]
        gateway.silent = set()
        clock.now_s += PAUSE_S_MAX
        for _ in range(5):  # one of the silent ones in each read
            found = await scan(bus, polled)
        assert found.values == [1, 2, 3, 4, 5, 6, 7]
        await bus.close()


@CLIENTS
async def test_an_endpoint_that_is_gone_after_a_time_out_is_told_as_that(client: str) -> None:
    gateway, polled = Gateway(), group(1, 2)
    gateway.silent = {1}
    async with scripted(gateway) as server:
        bus = device(server.port, polled, client=client, timeout_s=SHORT_S)
        await bus.connect()
        assert server.listener is not None
        server.listener.close()
        with pytest.raises(DeviceAway, match=r"unit 2\): the connection was refused; check the address"):
            await scan(bus, polled)


def test_the_pause_grows_to_its_limit() -> None:
    units, pauses = Units(frozenset({1})), []
    for _ in range(8):
        units.failed(1, 0.0, Quality.BAD_TIMEOUT, "no answer", is_mute=True)
        pauses.append(next(at for at in range(1, 99) if units.is_due(1, at)))
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]
    units.answered(1)
    assert units.is_due(1, 0.0)


def test_units_are_mute_only_together() -> None:
    units, only_one = Units(frozenset({1, 2})), Units(frozenset({1}))
    units.failed(1, 0.0, Quality.BAD_TIMEOUT, "no answer", is_mute=True)
    only_one.failed(1, 0.0, Quality.BAD_TIMEOUT, "no answer", is_mute=True)
    assert (units.all_mute, only_one.all_mute) == (False, True)


def test_a_gateway_that_answers_is_no_mute_device() -> None:
    units = Units(frozenset({1, 2}))
    units.failed(1, 0.0, Quality.BAD_TIMEOUT, "no answer", is_mute=True)
    units.failed(2, 0.0, Quality.BAD_TIMEOUT, "the gateway says so", is_mute=False)
    assert not units.all_mute
    units.wake()
    assert units.is_due(1, 0.0) and units.silence(1) is None


@CLIENTS
async def test_pauses_after_connecting_and_between_requests(client: str) -> None:
    """A timer of a fifth of the pause, set when the server answers, is over before the next request comes."""
    over: list[int] = []
    asked = 0

    async def script(exchange: Exchange) -> None:
        nonlocal asked
        assert over == list(range(asked)), "a request came before the pause after the answer before it was over"
        await exchange.send(exchange.answer(bytes(exchange.size)))
        asyncio.get_running_loop().call_later(0.01, over.append, asked)
        asked += 1

    async with scripted(script) as server:
        polled = group(1, blocks=3)
        bus = device(server.port, polled, client=client, pause_s=0.05, timeout_s=5.0)
        await bus.connect()
        for _ in range(2):
            await scan(bus, polled)
        assert asked == 6
        await bus.close()

        ready: list[bool] = []
        slow = device(server.port, polled, client=client, connect_pause_s=0.05)
        connecting = asyncio.create_task(slow.connect())
        while server.connections < 2:  # noqa: ASYNC110 the server says nothing when somebody connects
            await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.01, ready.append, True)
        await connecting
        assert ready == [True]
        await slow.close()
