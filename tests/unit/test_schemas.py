"""The JSON Schemas and examples in `config/` are what the programs' own models give, and fit together."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent import drivers
from agent import schema as agent_schema
from agent.commands.init import example as agent_example
from agent.settings import AgentSettings, GroupSettings

CONFIG = Path(__file__).parents[2] / "config"


# ── the agent ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_agents_files_are_current() -> None:
    schema = (CONFIG / "agent.schema.json").read_text(encoding="utf-8")
    assert schema == agent_schema.schema_text(), "bring it up to date: holdfast schema > config/agent.schema.json"
    example = (CONFIG / "agent.example.yaml").read_text(encoding="utf-8")
    assert example == agent_example(), "bring it up to date: cp agent/example.yaml config/agent.example.yaml"


def test_the_agents_example_names_its_schema() -> None:
    first = agent_example().splitlines()[0]
    assert first == "# yaml-language-server: $schema=agent.schema.json"


def test_the_agents_schema_has_every_key_of_every_driver() -> None:
    schema = json.loads(agent_schema.schema_text())
    assert set(schema["properties"]) == set(AgentSettings.model_fields)
    for protocol in drivers.known():
        module = drivers.find(protocol)
        assert module is not None
        device = schema["$defs"][f"{protocol}.Device"]
        assert device["additionalProperties"] is False
        assert set(device["properties"]) == {"name", "machine", "protocol", "groups", *module.Settings.model_fields}
        group = schema["$defs"][f"{protocol}.Group"]
        assert set(group["properties"]) == {*GroupSettings.model_fields, *module.GroupSettings.model_fields}
        assert set(schema["$defs"][f"{protocol}.Tag"]["properties"]) == set(module.TagSettings.model_fields)


def test_the_agents_schema_is_the_same_where_opc_ua_is_not_installed() -> None:
    """None in sys.modules makes an import fail, as it does where a package is not installed."""
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['asyncua', 'cryptography']));"
        "from agent.schema import schema_text; sys.stdout.write(schema_text())"
    )
    shown = subprocess.run([sys.executable, "-c", code], cwd=CONFIG.parent, capture_output=True, text=True, check=True)
    assert shown.stdout == agent_schema.schema_text()


def test_every_reference_of_the_agents_schema_leads_somewhere() -> None:
    schema = json.loads(agent_schema.schema_text())
    references = set(_references(schema))
    assert references
    assert {reference.removeprefix("#/$defs/") for reference in references} <= set(schema["$defs"])


def test_the_agents_example_fits_its_schema() -> None:
    document = yaml.safe_load(agent_example())
    schema = json.loads(agent_schema.schema_text())
    assert list(_misfits(document, schema, schema)) == []


@pytest.mark.parametrize(
    ("change", "misfit"),
    [
        (lambda d: d["broker"].update(hots="x"), "/broker/hots: unknown"),
        (lambda d: d["gateway"].pop("thing"), "/gateway/thing: missing"),
        (lambda d: d["devices"][0].update(unitid=1), "/devices/0/unitid: unknown"),
        (lambda d: d["devices"][0].update(url="x"), "/devices/0/url: unknown"),
        (lambda d: d["devices"][1].pop("url"), "/devices/1/url: missing"),
        (lambda d: d["devices"][1]["groups"][0].update(mode="pull"), "/devices/1/groups/0/mode: not among"),
        (lambda d: d["devices"][0]["groups"][0].update(mode="poll"), "/devices/0/groups/0/mode: unknown"),
        (
            lambda d: d["devices"][0]["groups"][0]["tags"][0].update(adress=1),
            "/devices/0/groups/0/tags/0/adress: unknown",
        ),
        (lambda d: d["devices"][0]["groups"][0]["tags"][0].update(order="BACD"), "tags/0/order: not among"),
        (lambda d: d["devices"][0].update(groups={}), "/devices/0/groups: not of type array"),
    ],
)
def test_the_agents_schema_finds_mistakes(change: Any, misfit: str) -> None:
    document = yaml.safe_load(agent_example())
    schema = json.loads(agent_schema.schema_text())
    change(document)
    found = list(_misfits(document, schema, schema))
    assert any(misfit in one for one in found), found


def test_a_driver_installed_elsewhere_is_not_refused() -> None:
    document = yaml.safe_load(agent_example())
    document["devices"][0] = {
        "name": "cnc", "machine": "mill-1", "protocol": "focas", "host": "x", "groups": [{"tags": [{"name": "a"}]}]
    }  # fmt: skip
    schema = json.loads(agent_schema.schema_text())
    assert list(_misfits(document, schema, schema)) == []
    document["devices"][0].pop("machine")
    assert any("/devices/0/machine: missing" in one for one in _misfits(document, schema, schema))


# ── as much of JSON Schema as our schemas use (draft 2020-12; no validator is among the dependencies) ───────────────

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
        for value in schema.values():
            yield from _references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _references(value)


def _misfits(value: Any, schema: dict[str, Any], root: dict[str, Any], at: str = "") -> Iterator[str]:
    """Where a value does not fit a schema: types, choices, keys, and what `if` leads to."""
    if "$ref" in schema:
        yield from _misfits(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root, at)
    if "type" in schema and not _is_of(value, schema["type"]):
        yield f"{at}: not of type {schema['type']}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{at}: not among {schema['enum']}"
    if "const" in schema and value != schema["const"]:
        yield f"{at}: not {schema['const']}"
    if "anyOf" in schema:
        ways = [list(_misfits(value, way, root, at)) for way in schema["anyOf"]]
        if all(ways):
            yield from min(ways, key=len)
    for part in schema.get("allOf", ()):
        yield from _misfits(value, part, root, at)
    if "not" in schema and not list(_misfits(value, schema["not"], root, at)):
        yield f"{at}: is what it must not be"
    if "if" in schema and "then" in schema and not list(_misfits(value, schema["if"], root, at)):
        yield from _misfits(value, schema["then"], root, at)
    if isinstance(value, dict):
        yield from _misfitting_keys(value, schema, root, at)
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        for index, item in enumerate(value):
            yield from _misfits(item, schema["items"], root, f"{at}/{index}")


def _misfitting_keys(value: dict[str, Any], schema: dict[str, Any], root: dict[str, Any], at: str) -> Iterator[str]:
    for key in schema.get("required", ()):
        if key not in value:
            yield f"{at}/{key}: missing"
    for key, inner in value.items():
        if key in schema.get("properties", {}):
            yield from _misfits(inner, schema["properties"][key], root, f"{at}/{key}")
        elif schema.get("additionalProperties") is False:
            yield f"{at}/{key}: unknown"


def _is_of(value: Any, kind: str) -> bool:
    if isinstance(value, bool) and kind != "boolean":
        return False
    return isinstance(value, _TYPES[kind])
