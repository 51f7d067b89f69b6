"""`holdfast probe` against real sockets."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.brokers import free_port
from tests.support.modbus_servers import Asked, Unit, plc
from tests.support.toolbox import Toolbox, configuration, modbus_device, toolbox, write


@pytest.fixture(scope="module")
def holdfast() -> Iterator[Toolbox]:
    with toolbox() as prepared:
        yield prepared


async def test_probe_shows_marks_and_writes_the_tag(holdfast: Toolbox, tmp_path: Path) -> None:
    unit = Unit()
    raw = struct.pack(">f", 71.25)
    unit.put("holding", 10, b"\0\7" + raw[2:] + raw[:2] + b"Ho")
    unit.coil = {number: number == 1 for number in range(16)}
    async with plc({3: unit}) as server:
        where = f"127.0.0.1:{server.port}"
        said = await holdfast.run(
            tmp_path, "probe", where, "40012", "--unit", "3", "--expect", "71.3", "--name", "level"
        )
        assert said.code == 0
        assert max(map(len, said.out.splitlines())) <= 80
        assert "holding:11  40012   8000  1000 0000 0000 0000  ·" in said.out
        assert "holding:13  40014   486F  0100 1000 0110 1111  Ho" in said.out
        [row] = [line for line in said.out.splitlines() if line.startswith("float32")]
        assert "71.25 ◀" in row
        assert said.out.splitlines()[-1] == "  - {name: level, address: holding:11, type: float32, order: CDAB}"
        # One read for the run and its neighbours; the hole behind it is found by dividing, and nothing is written.
        assert server.asked[0] == Asked(3, 3, 10, 6)
        assert {asked.function for asked in server.asked} == {3}
        # The line is what the driver reads.
        tag = yaml.safe_load(said.out.splitlines()[-1])[0]
        write(tmp_path, configuration(modbus_device("press-plc", server.port, tag, unit_id=3)))
        read = await holdfast.run(tmp_path, "read", "press-plc", "--json")
        assert read.json["tags"][0]["value"] == 71.25
        # By its name, with the unit id of the configuration; a bare number has two meanings.
        by_name = await holdfast.run(tmp_path, "probe", "press-plc", "12", "--json", "-e", "71.25")
        assert {one["address"] for one in by_name.json["readings"]} == {"holding:11", "holding:12"}
        assert by_name.json["fits"][0]["tag"]["order"] == "CDAB"
        bits = await holdfast.run(tmp_path, "probe", "press-plc", "coil:0", "--count", "3")
        assert [line.split() for line in bits.out.splitlines()[3:]] == [
            ["coil:0", "00001", "0"],
            ["coil:1", "00002", "1"],
            ["coil:2", "00003", "0"],
        ]


async def test_probe_says_what_is_wrong_in_a_sentence(holdfast: Toolbox, tmp_path: Path) -> None:
    unit = Unit()
    unit.put("holding", 0, b"\0\1")
    async with plc({1: unit}) as server:
        where = f"127.0.0.1:{server.port}"
        hole = await holdfast.run(tmp_path, "probe", where, "holding:500")
        assert hole.code == 69
        assert hole.err.startswith("device: holding 500 (40501): the PLC answered exception 2, illegal data address; ")
        table = await holdfast.run(tmp_path, "probe", where, "40001", "--expect", "99", "--count", "1")
        assert table.code == 0
        assert "✗ nothing here reads as 99" in table.out
    nobody = await holdfast.run(tmp_path, "probe", f"127.0.0.1:{free_port()}", "40001", "--json")
    assert nobody.code == 69
    assert "the connection was refused; check the address and the port" in nobody.json["error"]
    for arguments, sentence in (
        (["127.0.0.1", "90000"], "does not say which table it means"),
        (["127.0.0.1", "coil:0", "--expect", "1"], "a coil is true or false; leave --expect out"),
        (["127.0.0.1", "40001", "--expect", "x"], "'x' is no number; write it as 23.5"),
        (["http://x", "40001"], "is no address of a device; write 10.0.0.5"),
        (["10.0.0.5:99999", "40001"], "there is no port 99999"),
        (["h:502:1", "40001"], "is no address of a device"),
    ):
        wrong = await holdfast.run(tmp_path, "probe", *arguments)
        assert (wrong.code, wrong.out) == (64, "")
        assert sentence in wrong.err
        assert len(wrong.err.splitlines()) == 1
