"""What can be written about a Modbus device and its tags, and what is said about what cannot."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from protocols.field.contract import Group, ValueType
from protocols.field.modbus import Settings, TagSettings, driver, tag
from protocols.field.modbus_address import Table


def settings(**keys: object) -> TagSettings:
    return TagSettings.model_validate({"name": "t", **keys})


@pytest.mark.parametrize(
    ("keys", "value_type"),
    [
        ({"address": "coil:0"}, ValueType.BOOL),
        ({"address": 10001, "type": "bool"}, ValueType.BOOL),
        ({"address": 40001}, ValueType.UINT),
        ({"address": 40001, "bit": 0}, ValueType.BOOL),
        ({"address": 40001, "bit": 15, "type": "bool"}, ValueType.BOOL),
        ({"address": 40001, "type": "bool"}, ValueType.BOOL),
        ({"address": 40001, "type": "int16"}, ValueType.INT),
        ({"address": 40001, "type": "int64"}, ValueType.INT),
        ({"address": 40001, "type": "uint64"}, ValueType.UINT),
        ({"address": 40001, "type": "float32"}, ValueType.FLOAT32),
        ({"address": 40001, "type": "float64"}, ValueType.FLOAT64),
        ({"address": 40001, "type": "string", "length": 5}, ValueType.STRING),
        ({"address": 40001, "scale": 0.1}, ValueType.FLOAT64),
        ({"address": 40001, "offset": -40}, ValueType.FLOAT64),
        ({"address": 40001, "type": "float32", "scale": 2}, ValueType.FLOAT64),
        ({"address": 40001, "type": "float32", "scale": 1, "offset": 0}, ValueType.FLOAT32),
    ],
)
def test_the_type_of_the_values(keys: dict[str, object], value_type: ValueType) -> None:
    assert tag(settings(**keys)).value_type is value_type


@pytest.mark.parametrize(
    ("keys", "size"),
    [
        ({"address": 10001}, 1),
        ({"address": 40001}, 1),
        ({"address": 40001, "type": "float32"}, 2),
        ({"address": 40001, "type": "float64"}, 4),
        ({"address": 40001, "type": "string", "length": 5}, 3),
    ],
)
def test_how_much_it_takes(keys: dict[str, object], size: int) -> None:
    assert tag(settings(**keys)).address.size == size


def test_a_tag_keeps_its_name_unit_and_place() -> None:
    built = tag(settings(name="press.temperature", unit="°C", address=30011, unit_id=0, order="CDAB"))
    assert (built.name, built.unit) == ("press.temperature", "°C")
    assert (built.address.table, built.address.address, built.address.unit_id) == (Table.INPUT, 10, 0)
    assert built.address.encoding.order == "CDAB"


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"address": "coil:0", "type": "int16"}, "a coil holds one bit, so its type is bool"),
        ({"address": "coil:0", "scale": 2.0}, "a coil holds one bit"),
        ({"address": "discrete:0", "order": "CDAB"}, "a discrete holds one bit"),
        ({"address": "00001", "bit": 3}, "`bit` is for registers, and 00001 is a coil"),
        ({"address": 40001, "bit": 3, "type": "uint16"}, "`bit` makes a bool, not uint16"),
        ({"address": 40001, "type": "string"}, "a string needs its `length`"),
        ({"address": 40001, "length": 4}, "`length` is for strings"),
        ({"address": 40001, "type": "bool", "scale": 2.0}, "scale and offset are for numbers"),
        ({"address": 40001, "type": "string", "length": 4, "offset": 1.0}, "scale and offset are for numbers"),
        ({"address": 40001, "bit": 1, "offset": 1.0}, "scale and offset are for numbers"),
        ({"address": 40001, "scale": 0}, "scale 0 would make every value the offset"),
        ({"address": "holding:65535", "type": "float32"}, "its 2 registers from holding 65535 (465536) on would end"),
    ],
)
def test_contradictions_are_told_in_a_sentence(keys: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)) as caught:
        tag(settings(**keys))
    assert str(caught.value).startswith("tag t: ")


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"address": 1},
        {"address": True},
        {"address": 40001.0},
        {"address": "holding:70000"},
        {"address": 40001, "type": "int24"},
        {"address": 40001, "order": "abcd"},
        {"address": 40001, "bit": 16},
        {"address": 40001, "type": "string", "length": 251},
        {"address": 40001, "scale": float("nan")},
        {"address": 40001, "scale": "0.1"},
        {"address": 40001, "unit_id": 256},
        {"address": 40001, "lenght": 3},
    ],
)
def test_what_is_no_tag_at_all(keys: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        settings(**keys)


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"host": ""},
        {"host": "10.0.0.5 "},
        {"host": "tcp://10.0.0.5"},
        {"host": "plc", "port": 0},
        {"host": "plc", "unit_id": 256},
        {"host": "plc", "timeout_s": 0},
        {"host": "plc", "max_registers": 126},
        {"host": "plc", "max_bits": 2001},
        {"host": "plc", "max_gap": -1},
        {"host": "plc", "order": "little"},
        {"host": "plc", "unitid": 1},
    ],
)
def test_what_is_no_device(keys: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate(keys)


@pytest.mark.parametrize("model", [Settings, TagSettings])
def test_every_key_is_described(model: type[Settings | TagSettings]) -> None:
    properties = model.model_json_schema()["properties"]
    assert [key for key, schema in properties.items() if not schema.get("description")] == []


def test_integers_may_stand_for_floats() -> None:
    assert Settings.model_validate({"host": "plc", "timeout_s": 2}).timeout_s == 2.0
    assert settings(address=40001, scale=10).scale == 10.0


def test_the_examples_of_the_document_are_valid() -> None:
    document = (Path(__file__).parents[2] / "docs" / "modbus.md").read_text(encoding="utf-8")
    examples = re.findall(r"```yaml\n(.*?)```", document, re.DOTALL)
    assert len(examples) == 3
    for device in (device for example in examples for device in yaml.safe_load(example)["devices"]):
        own = {key: value for key, value in device.items() if key not in ("name", "machine", "protocol", "groups")}
        groups = [
            Group(device["name"], "main", 1.0, tuple(tag(TagSettings.model_validate(one)) for one in group["tags"]))
            for group in device["groups"]
        ]
        assert driver(device["name"], Settings.model_validate(own), groups).requests == 0
