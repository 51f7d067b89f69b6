"""What an OPC UA server said is served again: the driver reads the recorded values with their status."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.capture.readings import decoded, encoded
from agent.capture.records import Header, Packer, joined
from agent.capture.ring import read_file
from agent.commands.polling import Latest
from agent.commands.replay_readings import _check, _group
from agent.plant.opcua import OpcuaPlant
from protocols.field.contract import Group, Happening, Quality, Scan, Tag, Value
from protocols.field.opcua import GroupSettings, Settings, TagSettings, driver
from protocols.field.opcua import tag as tag_of
from protocols.program.console import Failure
from tests.support.serving import serving
from tests.support.toolbox import toolbox

URL = "opc.tcp://10.0.0.9:4840"
TAGS: list[dict[str, Any]] = [
    {"name": "temperature", "node": "nsu=urn:plant:oven;s=T", "type": "float64", "scale": 0.1, "unit": "°C"},
    {"name": "recipe", "node": "ns=2;s=Recipe", "type": "string"},
    {"name": "count", "node": "ns=2;i=7", "type": "uint"},
    {"name": "on", "node": "ns=2;i=8", "type": "bool"},
    {"name": "axis", "node": "ns=2;s=Axes", "type": "float32", "part": "[1]"},
    {"name": "broken", "node": "ns=2;s=Broken", "type": "float64"},
]
DEVICE = {"name": "oven", "machine": "m", "protocol": "opcua", "url": URL, "groups": [{"tags": TAGS}]}
VALUES: list[Value] = [71.25, "Nougat", 2**63 + 1, True, 1.5, None]
QUALITIES = [0, 0, 0, 0, Quality.UNCERTAIN, Quality.BAD_DEVICE_FAILURE]


def recorded(path: Path) -> Path:
    """A file with two scans of these values."""
    packer = Packer()
    scan = Scan(_group(DEVICE), 1, VALUES, None, QUALITIES, {5: "the sensor is broken"})
    for at in (0, 1_000_000):
        for content in encoded(scan):
            packer.add(Happening.READ, at, content)
    header = Header("", URL, "holdfast 1", "2026-11-28T03:00:00+00:00", DEVICE)
    path.write_bytes(header.encode() + b"".join(one for _, one in packer.take()))
    return path


async def test_the_driver_reads_what_was_recorded(tmp_path: Path) -> None:
    path = recorded(tmp_path / "a.hfcap")
    async with serving(tmp_path, "replay", "a.hfcap", "--port", "0", "--write", "desk.yaml") as said:
        tags = tuple(tag_of(TagSettings.model_validate(one)) for one in TAGS)
        group = Group("oven", "main", 1.0, tags, GroupSettings(mode="poll"))
        oven = driver("oven", Settings(url=said["url"], timeout_s=30.0), [group])
        await oven.connect()
        latest = Latest(group)
        for scan in await oven.read(group):
            latest.take(scan)
        await oven.close()
        with toolbox("agent.commands.replay") as holdfast:
            listed = await holdfast.run(tmp_path, "replay", str(path), "--list")
            devices = await holdfast.run(tmp_path, "device", "list", "--config", "desk.yaml", "--json")
    readings = [one for one in latest.readings if one is not None]
    assert [one.value for one in readings[:5]] == VALUES[:5]
    assert [Quality.word(one.quality) for one in readings] == ["good"] * 4 + ["uncertain", "bad"]
    assert said["serves"][5] == {"tag": "broken", "readings": 2, "not_good": 2}
    assert listed.flat.count("Nougat") == 2
    assert devices.json["devices"][0]["endpoint"].rstrip("/") == said["url"].rstrip("/")


def test_a_strangers_header_is_refused() -> None:
    strange: list[dict[str, Any]] = [
        {},
        {"groups": 7},
        {"groups": [{"tags": [{"name": "a"}]}]},
        {"groups": [{"tags": [7]}]},
    ]
    for device in strange:
        with pytest.raises(Failure, match="describes no OPC UA device"):
            _group(device)


def test_values_of_another_type_do_no_harm(tmp_path: Path) -> None:
    found = read_file(recorded(tmp_path / "a.hfcap"))
    _check(found)
    assert decoded(joined(found.records)[0].content)["recipe"].value == "Nougat"

    def wrong(tag: Tag, time_us: int) -> tuple[Value, int]:
        del time_us
        given: dict[str, Value] = {"float64": "text", "string": 7, "uint": None, "bool": 1, "float32": True}
        return given[tag.value_type], 0

    plant = OpcuaPlant([_group(DEVICE)], wrong)
    assert [one.value(wrong, 0)[0] for one in plant._variables] == [0.0, "", 0, False, [0.0, 0.0], 0.0]
