"""`holdfast device` changes the file as a careful person would."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.commands.init import example
from agent.settings import read
from tests.support.brokers import free_port
from tests.support.modbus_servers import Unit, plc
from tests.support.toolbox import Toolbox, configuration, modbus_device, toolbox, write


@pytest.fixture(scope="module")
def holdfast() -> Iterator[Toolbox]:
    with toolbox("agent.commands.device_file", "agent.commands.device_trial", "agent.commands.polling") as made:
        yield made


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


ADD = ("device", "add", "meter", "host=10.0.0.9", "unit_id=3", "--machine", "line-2", "--period", "0.5")
TAGS = ("-t", "name=power address=40001 type=float32 unit=kW", "-t", "name=on address=00001")


async def test_a_device_is_added_and_removed_and_nothing_else_changes(holdfast: Toolbox, tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(example(), encoding="utf-8")
    path.chmod(0o640)
    added = await holdfast.run(tmp_path, *ADD, *TAGS)
    assert added.code == 0
    assert "meter stands in agent.yaml now. Try it: holdfast device test meter" in added.out
    text = path.read_text(encoding="utf-8")
    assert text.startswith(example())  # the example ends with its devices
    assert path.stat().st_mode & 0o777 == 0o640
    device = read(path).device("meter")
    assert device is not None
    assert (device.machine, device.groups[0].period_s) == ("line-2", 0.5)
    assert [tag.name for tag in device.groups[0].tags] == ["power", "on"]
    assert '- {name: "on", address: "00001"}' in text
    listed = await holdfast.run(tmp_path, "device", "list")
    assert [line.split()[0] for line in listed.out.splitlines()] == ["name", "press-plc", "oven-controller", "meter"]
    assert max(map(len, listed.out.splitlines())) <= 80
    removed = await holdfast.run(tmp_path, "device", "remove", "meter", "--yes", "--json")
    assert removed.json == {"path": "agent.yaml", "removed": "meter", "tags": 2}
    assert path.read_text(encoding="utf-8") == example()
    assert sorted(names_in(tmp_path)) == ["agent.yaml"]


async def test_what_would_not_be_valid_changes_nothing(holdfast: Toolbox, tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(example(), encoding="utf-8")
    for arguments, code, sentence in (
        ((*ADD, "-t", "name=x address=7"), 78, "devices[2].groups[0].tags[0].address: address '7' does not say"),
        ((*ADD, "hots=1", *TAGS), 78, 'unknown key "hots"; did you mean "host"?'),
        (("device", "add", "press-plc", "host=h", *TAGS), 78, "a device press-plc stands above; choose another name"),
        (("device", "add", "x", "host", *TAGS), 64, "'host' is no KEY=VALUE; write it as host=10.0.0.5"),
        ((*ADD, "-t", "address"), 64, "--tag 'address' is no KEY=VALUE"),
        (ADD, 64, "missing option '--tag'"),
        (("device", "remove", "nobody", "-y"), 64, "there is no device nobody in agent.yaml; there are press-plc"),
        (("device", "remove", "press-plc"), 64, "nobody is here to agree; add --yes"),
    ):  # fmt: skip
        said = await holdfast.run(tmp_path, *arguments)
        assert said.code == code, said
        assert sentence in said.err
        assert ".new" not in said.err
    assert path.read_text(encoding="utf-8") == example()
    assert sorted(names_in(tmp_path)) == ["agent.yaml"]
    write(tmp_path, configuration(modbus_device("only", 502)))
    said = await holdfast.run(tmp_path, "device", "remove", "only", "-y")
    assert (said.code, said.err) == (64, "only cannot be removed: it is the only one, and there has to be one\n")


async def test_a_link_to_the_file_stays_a_link(holdfast: Toolbox, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    write(tmp_path / "etc", configuration(modbus_device("only", 502)))
    (tmp_path / "agent.yaml").symlink_to("etc/agent.yaml")
    assert (await holdfast.run(tmp_path, *ADD, *TAGS)).code == 0
    assert (tmp_path / "agent.yaml").is_symlink()
    assert read(tmp_path / "etc" / "agent.yaml").device("meter") is not None


async def test_a_device_is_tried(holdfast: Toolbox, tmp_path: Path) -> None:
    unit = Unit()
    low = struct.pack(">f", 71.25)
    unit.put("holding", 0, struct.pack(">f", 23.5) + low[2:] + low[:2])
    good = {"name": "a", "address": 40001, "type": "float32"}
    async with plc({1: unit}) as server:
        well = modbus_device("well", server.port, good)
        other = [{"name": "b", "address": 40003, "type": "float32"}, {"name": "c", "address": 40099}]
        ill = modbus_device("ill", server.port, *other)
        write(tmp_path, configuration(well, ill, modbus_device("gone", free_port())))
        said = await holdfast.run(tmp_path, "device", "test", "well")
        assert said.code == 0
        assert "✓ group main  1 of 1 tags good" in said.out
        said = await holdfast.run(tmp_path, "device", "test", "ill")
        assert said.code == 69
        assert "✗ group main  1 of 2 tags good" in said.out
        assert "c: holding 98 (40099): the PLC answered exception 2, illegal data address" in said.flat
        assert "with order: CDAB it is 71.25" in said.flat
    said = await holdfast.run(tmp_path, "device", "test", "gone", "--json")
    assert (said.code, said.json["ok"]) == (69, False)
    assert "the connection was refused" in said.json["findings"][0]["text"]
    assert (await holdfast.run(tmp_path, "device", "test", "welll")).err.endswith("did you mean well?\n")
