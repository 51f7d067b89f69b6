"""`holdfast simulate`: every tag of a configuration has a good value that moves, as the agent's driver reads it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from agent import settings as agent_settings
from agent.commands.simulate_run import _reply
from agent.plant.opcua import made_up, variables
from agent.plant.registers import Units
from protocols.field.contract import Group, Quality, Scan, Tag
from protocols.field.modbus import Settings, TagSettings, driver, tag
from protocols.field.modbus_codec import AnyType, Order
from protocols.field.modbus_server import Asked, ModbusServer, ServedTransport
from protocols.field.opcua import TagSettings as NodeSettings
from protocols.field.opcua import tag as node
from tests.support.modbus_servers import HOST
from tests.support.serving import serving
from tests.support.toolbox import Toolbox, configuration, modbus_device, toolbox, write

NOON_US = 1_796_040_000_000_000
MINUTE_US = 60_000_000
ORDERS = get_args(Order)
TYPES = [one for part in get_args(AnyType) for one in (get_args(part) or [part])]


def numbers() -> Iterator[dict[str, Any]]:
    """A tag of each type in each order, and of each meaning."""
    for kind in TYPES:
        for order in ORDERS:
            yield {"type": kind, "order": order, **({"length": 9} if kind == "string" else {})}
            if kind not in ("bool", "string") and not kind.startswith("time"):
                yield {"type": kind, "order": order, "scale": 0.1, "offset": -20.0, "unit": "°C"}
    for order in ORDERS:
        yield {"bit": 11, "order": order}
        yield {"bit": 2, "bit_count": 5, "order": order}
        yield {"states": {3: "run", 7: "stop", 900: "fault"}, "order": order}
        yield {"flags": {0: "a", 5: "b", 15: "c"}, "order": order}
        yield {"type": "uint32", "counter_step_max": 40, "order": order}
        yield {"type": "int16", "clamp_min": -5.0, "clamp_max": 5.0, "order": order}
        yield {"type": "int16", "unavailable": [*range(16)], "clamp_max": 20.0, "order": order}


def tags() -> tuple[Tag, ...]:
    made, address = [], 0
    for at, keys in enumerate(numbers()):
        one = tag(TagSettings.model_validate({"name": f"t{at}", "address": f"holding:{address}", **keys}))
        address += one.address.size
        made.append(one)
    bits = [TagSettings(name=f"b{at}", address=f"{table}:{at}") for at, table in enumerate(["coil", "discrete"] * 9)]
    return (*made, *map(tag, bits), tag(TagSettings(name="other", address="input:3", unit_id=9, unit="bar")))


GROUP = Group("plc", "main", 1.0, tags())


@asynccontextmanager
async def served(units: Units, transport: ServedTransport = "tcp") -> AsyncIterator[Settings]:
    server = ModbusServer(transport, lambda asked: _reply(transport, units, asked))
    await server.start(HOST, 0)
    try:
        yield Settings(host=HOST, port=server.port, transport=transport, timeout_s=5.0)
    finally:
        await server.stop()


async def read_at(moments_us: list[int], transport: ServedTransport = "tcp") -> list[Scan]:
    now_us = moments_us[0]
    units = Units([(Settings(host=HOST), [GROUP])], lambda: now_us)
    async with served(units, transport) as settings:
        plc = driver("plc", settings, [GROUP])
        scans: list[Scan] = []
        await plc.connect()
        for now_us in moments_us:  # noqa: B007  # the units look at it
            scans += await plc.read(GROUP)
        await plc.close()
    return scans


@pytest.mark.parametrize("transport", ["tcp", "udp", "rtu_over_tcp"])
async def test_every_type_is_good_and_moves(transport: ServedTransport) -> None:
    moments_us = [NOON_US + at * 133_700_000 for at in range(9)]
    scans = await read_at(moments_us, transport)
    for scan in scans:
        assert not scan.reasons, [(GROUP.tags[at].name, why) for at, why in scan.reasons.items()]
    columns = list(zip(*(scan.values for scan in scans), strict=True))
    still = [one.name for one, column in zip(GROUP.tags, columns, strict=True) if len(set(column)) < 2]
    assert still == []
    shown = dict(zip((one.name for one in GROUP.tags), columns, strict=True))
    assert all(0.8 <= value <= 8 for value in shown["other"])
    for at, keys in enumerate(numbers()):
        if "unit" in keys:
            assert all(17 <= value <= 86 for value in shown[f"t{at}"]), (keys, shown[f"t{at}"])
        if "counter_step_max" in keys:
            assert list(shown[f"t{at}"]) == sorted(shown[f"t{at}"])


async def test_what_is_not_there_is_refused_and_what_is_written_stays() -> None:
    keys: list[dict[str, Any]] = [
        {"name": "far", "address": "holding:900"},
        {"name": "nobody", "address": "holding:0", "unit_id": 77},
        {"name": "set", "address": "holding:5", "writable": True, "write_min": 0.0, "write_max": 100.0},
        {
            "name": "two",
            "address": "holding:6",
            "type": "float32",
            "writable": True,
            "write_min": 0.0,
            "write_max": 9.0,
        },
        {"name": "bit", "address": "holding:8", "bit": 4, "writable": True},
        {"name": "coil", "address": "coil:2", "writable": True},
    ]
    group = Group("plc", "main", 1.0, tuple(tag(TagSettings.model_validate(one)) for one in keys))
    known = Group("plc", "main", 1.0, group.tags[2:])
    now_us = NOON_US
    units = Units([(Settings(host=HOST), [known])], lambda: now_us)
    async with served(units) as settings:
        for single in (True, False):
            plc = driver(
                "plc", settings.model_copy(update={"functions": [1, 3, 15, 16, 22] + [5, 6] * single}), [group]
            )
            await plc.connect()
            (scan,) = await plc.read(group)
            assert [scan.quality[at] for at in (0, 1)] == [Quality.BAD_OUT_OF_RANGE, Quality.BAD_TIMEOUT]  # type: ignore[index]  # two are bad
            wanted = [42 + single, 2.5 + single, single, not single]
            for one, value in zip(known.tags, wanted, strict=True):
                assert await plc.write(one, value) == value
            now_us += MINUTE_US
            (scan,) = await plc.read(group)
            assert list(scan.values[2:]) == wanted
            await plc.close()


@given(
    st.binary(max_size=12)
    | st.builds(lambda f, b: bytes([f]) + b, st.integers(1, 24), st.binary(min_size=4, max_size=9))
)
def test_whatever_is_asked_is_answered(pdu: bytes) -> None:
    units = Units([(Settings(host=HOST), [GROUP])], lambda: NOON_US)
    told = units.answer(Asked(1, pdu, 0))
    function = pdu[0] if pdu else 0
    assert told[0] & 0x7F == function & 0x7F
    assert len(told) == 2 if told[0] & 0x80 else len(told) > 2


def test_nodes_that_cannot_be_shown_are_told() -> None:
    def nodes(*keys: tuple[str, str]) -> list[Group]:
        made = [
            node(NodeSettings(name=f"t{at}", node=at_, type="int", part=part)) for at, (at_, part) in enumerate(keys)
        ]
        return [Group("ua", "main", 1.0, tuple(made))]

    found, left_out = variables(nodes(("ns=2;s=a", "[2]"), ("ns=2;s=a", "[0]"), ("ns=2;s=b", "X.Y"), ("i=2258", "")))
    assert [len(one.value(made_up, NOON_US)[0]) for one in found] == [3]
    assert left_out == ["t2"]
    found, left_out = variables(nodes(("ns=2;s=a", ""), ("ns=2;s=a", "[0]"), ("ns=2;s=c", "[999999]")))
    assert ([len(one.tags) for one in found], left_out) == ([1], ["t1", "t2"])


# --- the command ---


@pytest.fixture(scope="module")
def holdfast() -> Iterator[Toolbox]:
    with toolbox("agent.commands.simulate", "agent.commands.polling") as prepared:
        yield prepared


async def test_the_plant_is_read_with_the_configuration_that_it_writes(holdfast: Toolbox, tmp_path: Path) -> None:
    serial = modbus_device("meter", 502, {"name": "power", "address": 30001, "type": "float32", "unit": "kW"})
    serial = {key: value for key, value in serial.items() if key not in ("host", "port")}
    oven = {
        "name": "oven",
        "machine": "m-oven",
        "protocol": "opcua",
        "url": "opc.tcp://10.0.0.9:4840",
        "security_policy": "Basic256Sha256",
        "username": "me",
        "password": "hush",
        "groups": [
            {
                "tags": [
                    {"name": "ot", "node": "nsu=urn:plant:oven;s=T", "type": "float64", "unit": "°C"},
                    {"name": "on", "node": "ns=3;i=7", "type": "bool"},
                    {"name": "a1", "node": "ns=3;i=8", "part": "[1]", "type": "uint"},
                ]
            }
        ],
    }
    whole = configuration(
        modbus_device("plc", 502, {"name": "p", "address": 40001, "unit": "bar", "scale": 0.1}, host="10.0.0.5"),
        modbus_device("plc-2", 502, {"name": "q", "address": 40001}, host="10.0.0.5", unit_id=2),
        {**serial, "transport": "rtu", "serial_port": "/dev/ttyUSB0", "parity": "none"},
        oven,
        {"name": "sim", "machine": "m", "protocol": "simulated", "groups": [{"tags": [{"name": "x"}]}]},
    )
    whole["broker"] = {"host": "cloud.example.com", "username": "u", "password": "hush"}
    write(tmp_path, whole)
    async with serving(tmp_path, "simulate", "--port", "0", "--write", "desk.yaml") as said:
        served_at = {one["device"]: one["at"] for one in said["devices"]}
        assert served_at["plc"] == served_at["plc-2"] != served_at["meter"]
        assert served_at["sim"] == ""
        text = (tmp_path / "desk.yaml").read_text(encoding="utf-8")
        desk = yaml.safe_load(text)
        assert "hush" not in text
        assert (desk["gateway"]["thing"], desk["broker"]["host"]) == ("gw-1-rehearsal", "127.0.0.1")
        agent_settings.read(tmp_path / "desk.yaml", environ={})
        for name, count in (("plc", 1), ("plc-2", 1), ("meter", 1), ("oven", 3), ("sim", 1)):
            read = await holdfast.run(tmp_path, "read", name, "--config", "desk.yaml", "--json")
            assert [one["quality"] for one in read.json["tags"]] == ["good"] * count, read.flat
        again = await holdfast.run(tmp_path, "simulate", "plc", "--port", "0", "--write", "desk.yaml")
        assert (again.code, "is there already" in again.flat) == (64, True)
        port = served_at["plc"].rpartition(":")[2]
        taken = await holdfast.run(tmp_path, "simulate", "plc", "--port", port)
        assert (taken.code, "give another one with --port" in taken.flat) == (69, True)
    nothing = await holdfast.run(tmp_path, "simulate", "sim")
    assert (nothing.code, "there is nothing to serve" in nothing.flat) == (64, True)
    await asyncio.sleep(0)
