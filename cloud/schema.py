"""The configuration's JSON Schema: CloudSettings, with each store's own keys woven in by the name of its type.

`holdfast-cloud schema > config/cloud.schema.json` brings the repository's copy up to date.
"""

from __future__ import annotations

import json
import pkgutil
from typing import Any

from cloud import store as stores
from cloud.settings import CloudSettings, find_store
from protocols.program.schema import json_schema


def schema_text() -> str:
    """The schema, with every store there is."""
    schema = json.loads(json_schema(CloudSettings, "Configuration of the Holdfast receiver"))
    choice = schema["$defs"].pop("StoreChoice")
    kinds = {kind: _of_kind(kind, choice) for kind in known_stores()}
    schema["$defs"] |= {f"store.{kind}": own for kind, own in kinds.items()}
    choice["properties"]["type"]["enum"] = list(kinds)
    schema["properties"]["store"] = {
        "description": schema["properties"]["store"]["description"],
        "type": "object",
        "properties": choice["properties"],
        "allOf": [
            {
                "if": {"properties": {"type": {"const": kind}}, **_said(kind, choice)},
                "then": {"$ref": f"#/$defs/store.{kind}"},
            }
            for kind in kinds
        ],
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def known_stores() -> list[str]:
    """The values that `store.type` may have."""
    return [module.name for module in pkgutil.iter_modules(stores.__path__) if find_store(module.name) is not None]


def _said(kind: str, choice: dict[str, Any]) -> dict[str, Any]:
    """Any kind but the default must be named."""
    return {} if choice["properties"]["type"].get("default") == kind else {"required": ["type"]}


def _of_kind(kind: str, choice: dict[str, Any]) -> dict[str, Any]:
    """The kind's own keys beside `type`, and no others."""
    module = find_store(kind)
    own = {} if module is None else module.Settings.model_json_schema()
    return {
        "type": "object",
        "description": own.get("description", ""),
        "properties": {"type": {**choice["properties"]["type"], "const": kind}, **own.get("properties", {})},
        "required": own.get("required", []),
        "additionalProperties": False,
    }
