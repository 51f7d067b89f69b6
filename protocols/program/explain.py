"""What pydantic found wrong, in sentences for people and with the path it is about. Pure.

pydantic's `loc` is a path with more in it: the tags of unions, the names of validators, `[key]`. The parts that are
neither a key nor an index of the document are skipped; where that leaves a choice, the place whose value is the very
object pydantic complained of is the right one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from json import dumps
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from protocols.program.problem import Path, is_secret
from protocols.program.scalar import Ambiguous, resolve

_QUOTED = re.compile(r"'((?:[^'\\]|\\.)*)'")

# pydantic's error types by what they expected instead.
_EXPECTED = {
    "a whole number": ("int_type", "int_parsing", "int_parsing_size", "int_from_float"),
    "a number": ("float_type", "float_parsing", "decimal_type", "decimal_parsing", "finite_number"),
    "a text": ("string_type", "string_unicode", "bytes_type"),
    "true or false": ("bool_type", "bool_parsing"),
    "a list": ("list_type", "tuple_type", "set_type", "frozen_set_type", "iterable_type"),
    "keys with values": ("dict_type", "mapping_type", "model_type", "model_attributes_type", "dataclass_type"),
    "nothing": ("none_required",),
    "a path": ("path_type",),
    "a date such as 2026-11-30": ("date_type", "date_parsing", "date_from_datetime_parsing"),
    "a time of day such as 06:30": ("time_type", "time_parsing"),
    "a date and time such as 2026-11-30T06:30:00Z": ("datetime_type", "datetime_parsing", "datetime_object_invalid"),
    "a duration such as P1DT12H": ("time_delta_type", "time_delta_parsing"),
    "an address such as mqtts://host:8883": ("url_type", "url_parsing", "url_syntax_violation"),
    "a UUID": ("uuid_type", "uuid_parsing"),
}
_EXPECTED_BY_TYPE = {kind: what for what, kinds in _EXPECTED.items() for kind in kinds}

_LIMITS = {
    "greater_than": ("must be more than", "gt"),
    "greater_than_equal": ("must be at least", "ge"),
    "less_than": ("must be less than", "lt"),
    "less_than_equal": ("must be at most", "le"),
    "multiple_of": ("must be a multiple of", "multiple_of"),
}
_LENGTHS = {
    "string_too_short": ("at least", "min_length", "character"),
    "string_too_long": ("at most", "max_length", "character"),
    "too_short": ("at least", "min_length", "entry"),
    "too_long": ("at most", "max_length", "entry"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong. `path` is what it is about; `place` is where to look for it: the mapping that lacks a key,
    otherwise the same. `at_key`: the key itself is wrong, not its value."""

    path: Path
    place: Path
    message: str
    at_key: bool = False


def explain(
    error: ValidationError, model: type[BaseModel], value: Any, base: Path = (), beside: Sequence[str] = ()
) -> list[Finding]:
    """Every error of validating the part of `value` at `base` with `model`, each once, as sentences.

    `value` is the whole document. `beside`: keys at `base` that another model reads, so that they may be meant. What a
    plain union's members expected of one place is told as one finding.
    """
    part = value
    for step in base:
        part = part[step]
    findings: list[Finding] = []
    expected: dict[Path, list[str]] = {}
    inputs: dict[Path, Any] = {}
    for details in error.errors(include_url=False):
        if what := _EXPECTED_BY_TYPE.get(details["type"]):
            path = _path(details["loc"], part, details["input"])
            inputs.setdefault(path, details["input"])
            expected.setdefault(path, []).append(what)
            continue
        findings.append(_finding(details, model, part, beside))
    for path, whats in expected.items():
        needed = [what for what in dict.fromkeys(whats) if what != "a whole number" or "a number" not in whats]
        message = f"expected {' or '.join(needed)}, found {_found(inputs[path], path)}"
        findings.append(Finding(path, path, message + _hint(whats, inputs[path])))
    return [Finding(base + f.path, base + f.place, f.message, f.at_key) for f in dict.fromkeys(findings)]


def suggest(word: str, known: Sequence[str]) -> str:
    """`did you mean "host"?`, or the words there are, or nothing when they are too many."""
    lowered = {name.lower().replace("-", "_"): name for name in known}
    if close := get_close_matches(word.lower().replace("-", "_"), lowered, 1, 0.6):
        return f'did you mean "{lowered[close[0]]}"?'
    return f"known here: {', '.join(known)}" if 0 < len(known) <= 12 else "remove it"


def _finding(details: ErrorDetails, model: type[BaseModel], part: Any, beside: Sequence[str]) -> Finding:
    kind, loc, given = details["type"], details["loc"], details["input"]
    context: Mapping[str, Any] = details.get("ctx", {})
    if kind in ("missing", "union_tag_not_found"):
        name: str | int = loc[-1] if kind == "missing" and loc else str(context.get("discriminator", "")).strip("'")
        place = _path(loc[:-1] if kind == "missing" else loc, part, given)
        return Finding((*place, name), place, _missing(given, name))
    if kind == "extra_forbidden":
        path = _path(loc, part, given)
        known = sorted({name for owner in _models_at(model, loc[:-1]) for name in _names(owner)})
        known += beside if len(loc) == 1 else ()
        return Finding(path, path, f'unknown key "{loc[-1]}"; {suggest(str(loc[-1]), known)}', at_key=True)
    if kind == "union_tag_invalid":
        path = _path(loc, part, given)
        name = str(context["discriminator"]).strip("'")
        if isinstance(given, dict) and name in given:
            path = (*path, name)
        return Finding(path, path, _choices(str(context["expected_tags"]), str(context["tag"])))
    at_key = bool(loc) and loc[-1] == "[key]"
    path = _path(loc, part, given)
    return Finding(path, path, _sentence(kind, context, given, path, details["msg"]), at_key)


def _sentence(kind: str, context: Mapping[str, Any], given: Any, path: Path, said: str) -> str:
    """The sentence for errors about a single value of the right type."""
    if kind in _LIMITS:
        words, key = _LIMITS[kind]
        return f"{words} {context[key]}, found {_found(given, path)}"
    if kind in _LENGTHS:
        words, key, unit = _LENGTHS[kind]
        length = context.get("actual_length", len(given) if isinstance(given, str) else "another number")
        return f"must have {words} {_count(context[key], unit)}, found {length}"
    if kind == "string_pattern_mismatch":
        return f"{_found(given, path)} does not match the pattern {context['pattern']}"
    if kind in ("enum", "literal_error"):
        return _choices(str(context["expected"]), given)
    if kind in ("value_error", "assertion_error"):
        return str(context["error"])  # written for people by whoever wrote the model
    return said.removeprefix("Input should be ").removeprefix("Value error, ")


def _missing(given: Any, name: str | int) -> str:
    if isinstance(given, (list, tuple)):
        return f"the list has {_count(len(given), 'entry')} and needs more; add what is missing"
    return f'the key "{name}" is missing; add it'


def _choices(expected: str, given: Any) -> str:
    known = _QUOTED.findall(expected)
    shown = ", ".join(f'"{word}"' for word in known) or expected
    close = suggest(given, known) if isinstance(given, str) else ""
    closing = f"; {close}" if close.startswith("did you mean") else ""
    return f"expected {'one of ' if len(known) > 1 else ''}{shown}; found {_found(given, ())}{closing}"


def _found(value: Any, path: Path) -> str:
    """What stands there, short, and nothing of a secret."""
    if is_secret(path) and value is not None:
        return "something else (not shown, it may be secret)"
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case int() | float():
            return f"the number {value}"
        case str():
            return f"the text {dumps(value if len(value) <= 60 else value[:59] + '…', ensure_ascii=False)}"
        case list() | tuple():
            return "a list"
        case dict():
            return "keys with values"
    return f"a {type(value).__name__}"


def _hint(expected: Sequence[str], given: Any) -> str:
    """What to do about a wrong type, where that is sure."""
    if "a text" in expected and isinstance(given, (bool, int, float)):
        return "; put quotes around it"
    if "keys with values" in expected and given is None:
        return "; write them beneath it, indented"
    if "a list" in expected and given is not None:
        return "; begin each entry with a dash"
    if isinstance(given, str) and any(_is_kind(what, given) for what in expected):
        return "; remove the quotes"
    return ""


def _is_kind(expected: str, text: str) -> bool:
    try:
        value = resolve(text)
    except Ambiguous:
        return False
    if isinstance(value, bool):
        return expected == "true or false"
    return (expected == "a whole number" and isinstance(value, int)) or (
        expected == "a number" and isinstance(value, (int, float))
    )


def _count(number: int, unit: str) -> str:
    plural = "entries" if unit == "entry" else f"{unit}s"
    return f"{number} {unit if number == 1 else plural}"


def _path(loc: Sequence[str | int], part: Any, given: Any) -> Path:
    """The path in the document that a `loc` means."""
    candidates = list(_walks(loc, part))
    return next((path for path, value in candidates if value is given), candidates[0][0])


def _walks(loc: Sequence[str | int], value: Any) -> Iterator[tuple[Path, Any]]:
    """Every reading of `loc`, the one that uses most of it first."""
    if not loc:
        yield (), value
        return
    step, rest = loc[0], loc[1:]
    in_dict = isinstance(value, dict) and step in value
    in_list = isinstance(value, list) and isinstance(step, int) and step < len(value)
    if in_dict or in_list:
        for path, found in _walks(rest, value[step]):
            yield (step, *path), found
    if isinstance(step, str):
        yield from _walks(rest, value)
    elif not in_list:
        yield (), value


def _models_at(model: type[BaseModel], loc: Sequence[str | int]) -> set[type[BaseModel]]:
    """The models whose keys may stand at `loc`."""
    models = {model}
    for step in loc:
        if not isinstance(step, str):
            continue
        inner = {
            found
            for owner in models
            for name, field in owner.model_fields.items()
            if step in (name, field.alias)
            for found in _models_in(field.annotation)
        }
        models = inner or {owner for owner in models if _is_tagged(owner, step)} or models
    return models


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _is_tagged(model: type[BaseModel], tag: str) -> bool:
    """Whether a union's part named `tag` means this model: by its name, or by the one word a field of it allows."""
    literals = (field.annotation for field in model.model_fields.values() if get_origin(field.annotation) is Literal)
    return model.__name__ == tag or any(tag in get_args(literal) for literal in literals)


def _names(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield field.alias or name
