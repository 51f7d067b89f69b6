"""The JSON Schema says what the receiver's settings accept, and the repository's copy is up to date."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cloud.commands.init import example
from cloud.schema import known_stores, schema_text
from cloud.store.sqlite import Settings

ROOT = Path(__file__).parents[2]


def test_the_repositorys_copy_is_up_to_date() -> None:
    said = "run: holdfast-cloud schema > config/cloud.schema.json"
    assert (ROOT / "config" / "cloud.schema.json").read_text() == schema_text(), said


def test_every_store_has_its_own_keys_beside_its_type() -> None:
    schema = json.loads(schema_text())
    assert known_stores() == ["sqlite"]
    sqlite = schema["$defs"]["store.sqlite"]
    assert sqlite["properties"].keys() == {"type", *Settings.model_fields}
    assert sqlite["additionalProperties"] is False
    assert all("description" in described for described in sqlite["properties"].values())


def test_the_default_store_needs_no_type() -> None:
    (choice,) = json.loads(schema_text())["properties"]["store"]["allOf"]
    assert choice == {"if": {"properties": {"type": {"const": "sqlite"}}}, "then": {"$ref": "#/$defs/store.sqlite"}}


@pytest.mark.parametrize("definition", ["BrokerSettings", "HttpSettings", "store.sqlite"])
def test_every_key_is_explained_in_the_example_or_in_the_schema(definition: str) -> None:
    described = json.loads(schema_text())["$defs"][definition]["properties"]
    assert all(about["description"] for about in described.values())
    assert any(f"{key}:" in example() for key in described)


def test_every_reference_leads_somewhere() -> None:
    schema = json.loads(schema_text())

    def references(value: object) -> set[str]:
        if isinstance(value, dict):
            own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
            return own.union(*map(references, value.values()))
        return set().union(*map(references, value)) if isinstance(value, list) else set()

    found = references(schema)
    assert found == {f"#/$defs/{name}" for name in schema["$defs"]}
