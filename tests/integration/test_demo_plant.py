"""The simulated plant as a process, read by raw clients that share no code with it."""

from __future__ import annotations

import asyncio
import json
import math
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from asyncua import ua
from asyncua.client.client import Client
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.pdu import ExceptionResponse

from demo.plant import DEVICES, EXCERPT, Ports
from demo.plant_modbus import PRESS, SOLAR, Point
from demo.plant_opcua import BAD_SENSOR_FAILURE, NAMESPACE_URI, OVEN, UNCERTAIN_SENSOR_NOT_ACCURATE, OvenNode
from demo.signals import Moment, Recording, load_recording

HOST = "127.0.0.1"
TICKS_PER_S = 10


def _start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "demo.plant", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


ANY_PORTS = ("--modbus-1", "0", "--modbus-2", "0", "--opcua", "0")


class Plant:
    """A running plant: its real ports, and the moments that it can have shown so far."""

    def __init__(self, process: subprocess.Popen[str], started_s: float) -> None:
        assert process.stdout
        line = process.stdout.readline()
        assert line, process.stderr.read() if process.stderr else ""
        ready = json.loads(line)
        assert ready.pop("ready") is True
        self.ports = Ports(**ready)
        self.process = process
        self._started_s = started_s
        self._recording: Recording = load_recording(EXCERPT)

    def moments(self) -> list[Moment]:
        """All from the start of the process to now."""
        count = int((time.monotonic() - self._started_s) * TICKS_PER_S) + 2
        return [self._recording.at(tick) for tick in range(count)]


@contextmanager
def _running(stop_with: signal.Signals) -> Iterator[Plant]:
    started_s = time.monotonic()
    process = _start(*ANY_PORTS)
    try:
        yield Plant(process, started_s)
        process.send_signal(stop_with)
        output, errors = process.communicate(timeout=30)
        assert (process.returncode, output, errors) == (0, "", "")
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def plant() -> Iterator[Plant]:
    with _running(signal.SIGTERM) as plant:
        yield plant


# ---- Modbus


@pytest.fixture(params=[("modbus_1", 1, SOLAR), ("modbus_2", 2, PRESS)], ids=["solar", "press"])
def plc(request: pytest.FixtureRequest, plant: Plant) -> tuple[int, int, tuple[Point, ...]]:
    port, unit_id, points = request.param
    return getattr(plant.ports, port), unit_id, points


@pytest.fixture
async def client(plc: tuple[int, int, tuple[Point, ...]]) -> AsyncIterator[AsyncModbusTcpClient]:
    client = AsyncModbusTcpClient(HOST, port=plc[0], retries=0)
    assert await client.connect()
    yield client
    client.close()


@pytest.fixture
async def solar(plant: Plant) -> AsyncIterator[AsyncModbusTcpClient]:
    client = AsyncModbusTcpClient(HOST, port=plant.ports.modbus_1, retries=0)
    assert await client.connect()
    yield client
    client.close()


async def _read(client: AsyncModbusTcpClient, unit_id: int, tag: dict[str, Any]) -> Any:
    """The published value of one tag, from nothing but its description."""
    table, address = tag["address"].split(":")
    if table in ("coil", "discrete"):
        read_bits = client.read_coils if table == "coil" else client.read_discrete_inputs
        bits = await read_bits(int(address), count=1, device_id=unit_id)
        assert not bits.isError(), tag
        return bits.bits[0]
    form = {"int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "int64": "q", "float32": "f", "float64": "d"}
    kind = tag["type"]
    size = tag["length"] if kind == "string" else 2 if kind == "bool" else struct.calcsize(form[kind])
    read = client.read_holding_registers if table == "holding" else client.read_input_registers
    answer = await read(int(address), count=(size + 1) // 2, device_id=unit_id)
    assert not answer.isError(), tag
    wire = b"".join(struct.pack(">H", register) for register in answer.registers)
    if kind == "string":
        return wire[:size].rstrip(b"\0").decode("ascii")
    if kind == "bool":
        return bool(int.from_bytes(wire, "big") >> tag["bit"] & 1)
    (number,) = struct.unpack(">" + form[kind], _big_endian(wire, tag.get("order", "ABCD")))
    return (
        number if tag.get("scale", 1) == 1 and not tag.get("offset") else number * tag["scale"] + tag.get("offset", 0)
    )


def _big_endian(wire: bytes, order: str) -> bytes:
    """ABCD of what lies on the wire as `order`, by where each byte is said to lie."""
    last = len(wire) - 1
    place: dict[str, Callable[[int], int]] = {
        "ABCD": lambda i: i,
        "DCBA": lambda i: last - i,
        "BADC": lambda i: i ^ 1,
        "CDAB": lambda i: (last - i) ^ 1,
    }
    return bytes(wire[place[order](i)] for i in range(len(wire)))


def _same(tag: dict[str, Any], got: object, meant: object) -> bool:
    if isinstance(got, bool | str):
        return got == meant
    assert isinstance(got, int | float)
    assert isinstance(meant, int | float)
    scaled = tag.get("scale", 1) != 1
    if tag["type"].startswith("float"):
        return math.isclose(got, meant, rel_tol=1e-6 if tag["type"] == "float32" else 1e-12, abs_tol=1e-6)
    return abs(got - meant) <= tag["scale"] * 0.501 if scaled else got == int(meant)


async def test_every_modbus_tag_reads_as_the_signal_behind_it(
    plant: Plant, plc: tuple[int, int, tuple[Point, ...]], client: AsyncModbusTcpClient
) -> None:
    _, unit_id, points = plc
    device = next(device for device in DEVICES if device["settings"].get("unit_id") == unit_id)
    tags = {tag["name"]: tag for group in device["groups"] for tag in group["tags"]}
    assert set(tags) == {point.name for point in points}
    for point in points:
        if point.signal is None:
            continue
        tag = tags[point.name]
        got = await _read(client, unit_id, tag)
        meant = [point.signal(moment) for moment in plant.moments()]
        assert any(_same(tag, got, value) for value in meant), (tag, got, meant[:3], meant[-3:])


async def test_one_answer_shows_one_recorded_minute(plant: Plant, solar: AsyncModbusTcpClient) -> None:
    answer = await solar.read_holding_registers(0, count=40, device_id=1)
    registers = answer.registers
    row = plant.moments()[registers[30] * TICKS_PER_S].row
    assert b"".join(struct.pack(">H", r) for r in registers[32:40]).decode() == row.time[:16]
    floats = struct.unpack(">4f", struct.pack(">8H", *registers[0:8]))
    wanted = [row.numbers[name] for name in ("temp_1_c", "temp_2_c", "temp_3_c", "temp_5_c")]
    assert floats == pytest.approx(wanted, rel=1e-6)
    assert registers[9] == 0x10000 - 888  # -88.8: a sensor that is not there
    seconds = registers[18] | registers[19] << 16  # CDAB
    assert seconds == row.numbers["relay_1_seconds"]


async def test_the_recording_moves_on(solar: AsyncModbusTcpClient) -> None:
    async def row_number() -> int:
        return int((await solar.read_holding_registers(30, count=1, device_id=1)).registers[0])

    seen = {await row_number()}
    async with asyncio.timeout(30):
        while len(seen) < 2:
            await asyncio.sleep(0.05)
            seen.add(await row_number())


@pytest.mark.parametrize(("address", "count"), [(40, 5), (40, 1), (44, 1), (42, 2), (39, 2), (44, 2), (0, 49), (49, 1)])
async def test_the_hole_answers_exception_2(solar: AsyncModbusTcpClient, address: int, count: int) -> None:
    answer = await solar.read_holding_registers(address, count=count, device_id=1)
    assert isinstance(answer, ExceptionResponse)
    assert answer.exception_code == 2
    for neighbour in (39, 45):
        assert not (await solar.read_holding_registers(neighbour, count=1, device_id=1)).isError()


async def test_the_tag_in_the_hole_is_described() -> None:
    (tag,) = [tag for tag in DEVICES[0]["groups"][0]["tags"] if tag["name"] == "missing_temp"]
    assert tag == {"name": "missing_temp", "address": "holding:42", "type": "float32", "order": "ABCD", "unit": "°C"}


async def test_a_write_is_refused_and_changes_nothing(solar: AsyncModbusTcpClient) -> None:
    before = (await solar.read_holding_registers(31, count=1, device_id=1)).registers
    answer = await solar.write_register(31, 1, device_id=1)
    assert isinstance(answer, ExceptionResponse)
    assert answer.exception_code == 2
    assert (await solar.write_coil(0, True, device_id=1)).isError()
    assert (await solar.read_holding_registers(31, count=1, device_id=1)).registers == before == [650]


async def test_another_unit_gets_an_exception_and_the_plant_stays_silent(solar: AsyncModbusTcpClient) -> None:
    answer = await solar.read_holding_registers(0, count=1, device_id=77)
    assert isinstance(answer, ExceptionResponse)
    assert not (await solar.read_holding_registers(0, count=1, device_id=1)).isError()  # stderr: checked when it stops


# ---- OPC UA


@pytest.fixture
async def oven(plant: Plant) -> AsyncIterator[Client]:
    async with Client(f"opc.tcp://{HOST}:{plant.ports.opcua}/") as client:
        yield client


async def _node_id(client: Client, node: OvenNode) -> ua.NodeId:
    index = await client.get_namespace_index(NAMESPACE_URI)
    return ua.NodeId.from_string(f"ns={index};s={node.node}")


def _may_show(plant: Plant, node: OvenNode, got: object) -> bool:
    for moment in plant.moments()[:: node.period_ticks]:
        meant = node.signal(moment)
        if isinstance(meant, bool | str):
            if got == meant:
                return True
        elif node.type in ("int", "uint"):
            if got == round(meant):
                return True
        elif isinstance(got, float) and math.isclose(got, meant, rel_tol=1e-6):
            return True
    return False


@pytest.mark.parametrize("node", OVEN, ids=lambda node: str(node.name))
async def test_every_opcua_tag_reads_as_the_signal_behind_it(plant: Plant, oven: Client, node: OvenNode) -> None:
    (tag,) = [tag for tag in DEVICES[2]["groups"][0]["tags"] if tag["name"] == node.name]
    assert tag["node"] == f"nsu={NAMESPACE_URI};s={node.node}"
    variable = oven.get_node(await _node_id(oven, node))
    shown = await variable.read_data_value(raise_on_bad_status=False)
    assert shown.SourceTimestamp is not None
    assert (await variable.read_data_type_as_variant_type()).name == node.variant
    assert shown.StatusCode is not None
    assert shown.Value is not None
    if node.name == "oxygen":
        assert (shown.StatusCode.value, shown.Value.Value) == (BAD_SENSOR_FAILURE, None)
        return
    assert not shown.StatusCode.is_bad()
    assert shown.Value.VariantType.name == node.variant
    assert _may_show(plant, node, shown.Value.Value), (node, shown)


class _Changes:
    """Collects what a subscription brings, by node, and says when there is something new."""

    def __init__(self) -> None:
        self.seen: dict[str, list[ua.DataValue]] = {}
        self.news = asyncio.Event()

    def datachange_notification(self, node: Any, _value: Any, data: Any) -> None:
        self.seen.setdefault(node.nodeid.Identifier, []).append(data.monitored_item.Value)
        self.news.set()


async def test_changes_come_at_different_speeds_with_their_own_timestamps_and_now_and_then_uncertain(
    plant: Plant, oven: Client
) -> None:
    by_id = {node.node: node for node in OVEN}
    fast, slow, doubtful = "Oven.Zone1.Temperature", "Oven.Batch.Number", "Oven.Gas.Flow"
    changes = _Changes()
    subscription = await oven.create_subscription(100, changes)
    wanted = [oven.get_node(await _node_id(oven, by_id[name])) for name in (fast, slow, doubtful)]
    await subscription.subscribe_data_change(wanted)
    async with asyncio.timeout(40):
        while not _enough(changes.seen, fast, slow, doubtful):
            changes.news.clear()
            await changes.news.wait()
    await subscription.delete()
    for name, shown in changes.seen.items():
        stamps = [value.SourceTimestamp for value in shown]
        assert None not in stamps
        assert stamps == sorted(set(stamps)), name  # type: ignore[type-var]  # None is excluded above
        assert all(_may_show(plant, by_id[name], value.Value.Value) for value in shown if value.Value), name
    assert len(changes.seen[fast]) > len(changes.seen[slow])
    codes = {value.StatusCode.value for value in changes.seen[doubtful] if value.StatusCode}
    assert codes == {0, UNCERTAIN_SENSOR_NOT_ACCURATE}
    uncertain = [v for v in changes.seen[doubtful] if v.StatusCode and v.StatusCode.is_uncertain()]
    assert all(value.Value and isinstance(value.Value.Value, float) for value in uncertain)


def _enough(seen: dict[str, list[ua.DataValue]], fast: str, slow: str, doubtful: str) -> bool:
    kinds = {value.StatusCode.value for value in seen.get(doubtful, []) if value.StatusCode}
    return len(seen.get(fast, [])) >= 5 and len(seen.get(slow, [])) >= 2 and len(kinds) == 2


async def test_the_endpoint_names_the_real_port(plant: Plant) -> None:
    url = f"opc.tcp://{HOST}:{plant.ports.opcua}/"
    endpoints = await Client(url).connect_and_get_server_endpoints()
    assert [(endpoint.EndpointUrl, endpoint.SecurityMode.name) for endpoint in endpoints] == [(url, "None_")]


# ---- the process


def test_sigint_ends_it_cleanly_too() -> None:
    with _running(signal.SIGINT) as plant:
        assert len({plant.ports.modbus_1, plant.ports.modbus_2, plant.ports.opcua}) == 3


@pytest.mark.parametrize("option", ["--modbus-1", "--modbus-2", "--opcua"])
def test_a_port_in_use_is_one_sentence_and_exit_69(option: str) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = str(taken.getsockname()[1])
        arguments = [
            port if before == option else word for before, word in zip(("", *ANY_PORTS), ANY_PORTS, strict=False)
        ]
        process = _start(*arguments)
        output, errors = process.communicate(timeout=30)
    assert process.returncode == 69
    assert output == ""
    assert errors == (
        f"demo plant: port {port} of {HOST} cannot be used (Address already in use); give {option} another one, or 0.\n"
    )


@pytest.mark.parametrize("option", ["--modbus-2", "--opcua"])
def test_a_port_that_is_lost_after_the_check_is_one_sentence_too(option: str) -> None:
    """The plant itself takes it from itself: two options name the same free port."""
    with socket.create_server((HOST, 0)) as free:
        port = str(free.getsockname()[1])
    process = _start(*ANY_PORTS, "--modbus-1", port, option, port)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output) == (69, "")
    assert errors.startswith("demo plant: ")
    assert port in errors
    assert errors.endswith("; give other ports, or 0.\n")
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--modbus-1", "70000"], "demo plant: argument --modbus-1: invalid port value: '70000'; see --help.\n"),
        (["--frequency", "3"], "demo plant: unrecognized arguments: --frequency 3; see --help.\n"),
        (
            ["--recording", "none.csv"],
            "demo plant: none.csv: the recording cannot be read (No such file or directory); check the file.\n",
        ),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_64(arguments: list[str], sentence: str) -> None:
    process = _start(*arguments)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output, errors) == (64, "", sentence)
