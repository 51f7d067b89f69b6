"""The configuration's JSON Schema: AgentSettings, with each driver's own keys woven in by the name of the protocol.

Only what drafts 7 and 2020-12 have in common is used (if, then, additionalProperties), because editors know little
more. `holdfast schema > config/agent.schema.json` brings the repository's copy up to date.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

from agent import drivers
from agent.settings import AgentSettings
from protocols.program.schema import json_schema

_REF = "#/$defs/"


def schema_text() -> str:
    """The schema, with every driver that is installed."""
    schema = json.loads(json_schema(AgentSettings, "Configuration of the Holdfast agent"))
    definitions = schema["$defs"]
    device, group = definitions["DeviceSettings"], definitions["GroupSettings"]
    protocols = drivers.known()
    for protocol in protocols:
        _weave(protocol, definitions, device, group)
    schema["properties"]["devices"]["items"] = {"$ref": f"{_REF}Device"}
    definitions["Device"] = _by_protocol(device, protocols)
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _weave(protocol: str, definitions: dict[str, Any], device: dict[str, Any], group: dict[str, Any]) -> None:
    """Add the definitions of a device of this protocol, of its groups and its tags; each knows all of its keys."""
    module = drivers.find(protocol)
    if module is None:
        return
    names = {kind: f"{protocol}.{kind}" for kind in ("Device", "Group", "Tag")}
    definitions[names["Tag"]] = _own(module.TagSettings, protocol, definitions)
    of_group = _merged(group, _own(module.GroupSettings, protocol, definitions), group["description"])
    of_group["properties"]["tags"] = {**group["properties"]["tags"], "items": {"$ref": _REF + names["Tag"]}}
    definitions[names["Group"]] = of_group
    own = _own(module.Settings, protocol, definitions)
    of_device = _merged(device, own, own.get("description", device["description"]))
    of_device["properties"]["groups"] = {**device["properties"]["groups"], "items": {"$ref": _REF + names["Group"]}}
    definitions[names["Device"]] = of_device


def _own(model: type[BaseModel], protocol: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """A driver's model. What it refers to is added under the protocol's name: two drivers may use the same names."""
    schema = model.model_json_schema(ref_template=f"{_REF}{protocol}.{{model}}")
    for name, inner in schema.pop("$defs", {}).items():
        definitions[f"{protocol}.{name}"] = inner
    return schema


def _merged(ours: dict[str, Any], own: dict[str, Any], description: str) -> dict[str, Any]:
    """The keys of both, and no others."""
    return {
        "type": "object",
        "description": description,
        "properties": {**ours["properties"], **own.get("properties", {})},
        "required": [*ours.get("required", []), *own.get("required", [])],
        "additionalProperties": False,
    }


def _by_protocol(device: dict[str, Any], protocols: list[str]) -> dict[str, Any]:
    """Any device: `protocol` says which keys it has. Of a driver that is installed elsewhere, only ours are known."""
    known = {"properties": {"protocol": {"enum": protocols}}, "required": ["protocol"]}
    described = device["properties"]["protocol"]
    return {
        "type": "object",
        "properties": {"protocol": {**described, "anyOf": [{"enum": protocols}, {"type": "string"}]}},
        "required": ["protocol"],
        "allOf": [
            *(
                {
                    "if": {"properties": {"protocol": {"const": protocol}}, "required": ["protocol"]},
                    "then": {"$ref": f"{_REF}{protocol}.Device"},
                }
                for protocol in protocols
            ),
            {"if": {"not": known}, "then": {"$ref": f"{_REF}DeviceSettings"}},
        ],
    }
