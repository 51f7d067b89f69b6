"""JSON Schema of a settings model, for editors."""

from __future__ import annotations

import json

from pydantic import BaseModel

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(model: type[BaseModel], title: str) -> str:
    """The schema as JSON with a newline at its end: the same model always gives the same text.

    Keys stand in the order in which the model declares them, so that an editor proposes them in that order.
    """
    schema = {"$schema": DRAFT, **model.model_json_schema(), "title": title}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
