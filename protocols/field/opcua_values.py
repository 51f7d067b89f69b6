"""From what an OPC UA server says of a node to the value, quality and reason of a tag. Pure: values in, values out.

The built-in types are the standard's (OPC 10000-6, 5.1.2). What a tag of each type takes:

    bool       Boolean
    int        SByte … UInt64, enumerations, within −2^63 … 2^63−1
    uint       the same, within 0 … 2^64−1
    float64    Float, Double; integers that a double holds exactly
    float32    the same, rounded (integers: held exactly)
    string     String, LocalizedText (its text), DateTime (ISO 8601, UTC), ByteString (hexadecimal), Guid;
               an enumeration (its name); a whole array or structure (JSON)

Everything else is BadTypeMismatch, with a sentence that names both types. A scaled tag takes any integer. A tag with a
part takes that part of an array or structure as if it were the node's value.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from protocols.field.contract import Quality, Tag, Value, ValueType
from protocols.field.opcua_clock import Clock
from protocols.field.opcua_parts import NoSuchPart, as_json, part_of, text_of
from protocols.field.opcua_settings import Address

_INTEGERS = frozenset({"SByte", "Byte", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64"})
_REALS = frozenset({"Float", "Double"})
_TEXTS = frozenset({"String", "LocalizedText", "DateTime", "ByteString", "Guid"})
_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1
_UINT_MAX = 2**64 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NO_TIME_BEFORE = datetime(1601, 1, 2, tzinfo=UTC)  # the zero of OPC UA's clock means "not known"


class Sample(NamedTuple):
    """What the server said of one node at one moment, free of the library's types."""

    type_name: str  # the built-in type, for example "Double"; "Null" for no value
    value: Any
    is_array: bool
    status: int
    source_us: int | None
    server_us: int | None
    trouble: str = ""  # why the value could not be taken apart


class Reading(NamedTuple):
    """One tag at one moment. `position` is the tag's in its group; `reason` is empty when the quality is good."""

    position: int
    time_us: int
    value: Value
    quality: int
    reason: str
    source_us: int | None = None  # the source's own time, where it gave one
    server_us: int | None = None  # when the server had the value from there, where it says so


class _DoesNotFit(Exception):
    """The value is not what the tag takes; quality and a sentence."""

    def __init__(self, reason: str, quality: int = Quality.BAD_TYPE_MISMATCH) -> None:
        super().__init__(reason)
        self.quality = quality


def microseconds(moment: datetime | None) -> int | None:
    """Microseconds since 1970 of an aware moment; None for none, and for the zero of OPC UA's clock."""
    if moment is None or moment < _NO_TIME_BEFORE:
        return None
    return (moment - _EPOCH) // timedelta(microseconds=1)


BELIEVED = Clock(tolerance_us=10**18)
"""A clock whose every time stamp is believed."""


def reading(
    position: int,
    tag: Tag,
    sample: Sample,
    now_us: int,
    explain: Callable[[int, str], str],
    clock: Clock = BELIEVED,
    previous_us: int | None = None,
    names: Mapping[int, str] | None = None,
) -> Reading:
    """The tag's reading.

    `explain` makes a sentence of a status code that is not good and the node's text. `previous_us`: the source time of
    the tag's value before this one. `names`: of an enumeration's values.
    """
    address: Address = tag.address
    quality, reason, value = sample.status, "", None
    if Quality.word(quality) != "good":
        reason = explain(quality, address.node.text)
    if Quality.word(quality) != "bad":
        try:
            value = _convert(_part(sample, address), tag.value_type, address, names or {})
        except _DoesNotFit as misfit:
            quality, reason = misfit.quality, f"node {address.node.text}: {misfit}"
    stated_us = next((t for t in (sample.source_us, sample.server_us) if t is not None), None)
    time_us, doubt = (now_us, "") if stated_us is None else clock.judge(stated_us, now_us, previous_us)
    if doubt and Quality.word(quality) == "good":
        quality, reason = Quality.UNCERTAIN, f"node {address.node.text}: {doubt}"
    return Reading(position, time_us, value, quality, reason, sample.source_us, sample.server_us)


def _part(sample: Sample, address: Address) -> Sample:
    """The sample of the part that the tag takes. Raises _DoesNotFit."""
    if sample.trouble:
        raise _DoesNotFit(f"its structure cannot be taken apart: {sample.trouble}", Quality.BAD_NOT_SUPPORTED)
    if not address.part:
        return sample
    try:
        value = part_of(sample.value, address.part)
    except NoSuchPart as error:
        raise _DoesNotFit(f"it has no part {text_of(address.part)}: {error}; set part to one that it has") from None
    name = _MEMBER_TYPES.get(type(value), sample.type_name)
    if not any(isinstance(step, str) for step in address.part) and not isinstance(value, list | dict):
        name = sample.type_name  # an array's element is of the array's own type
    return sample._replace(type_name=name, value=value, is_array=isinstance(value, list))


_MEMBER_TYPES: dict[type, str] = {
    bool: "Boolean",
    int: "Int64",
    float: "Double",
    str: "String",
    bytes: "ByteString",
    datetime: "DateTime",
    UUID: "Guid",
    dict: "ExtensionObject",
    type(None): "Null",
}


def _convert(sample: Sample, wanted: ValueType, address: Address, names: Mapping[int, str]) -> Value:
    """The value as the tag's type. Raises _DoesNotFit."""
    name = f"{sample.type_name}[]" if sample.is_array else sample.type_name
    value: Value = None
    if wanted is ValueType.STRING:
        value = _as_text(name, sample, names)
    elif sample.is_array or sample.value is None:
        value = None
    elif wanted is ValueType.BOOL:
        value = bool(sample.value) if name == "Boolean" else None
    elif name in _INTEGERS:
        value = _from_integer(name, int(sample.value), wanted, address)
    elif name in _REALS and wanted in (ValueType.FLOAT32, ValueType.FLOAT64):
        value = _real(float(sample.value), wanted, address)
    if value is None:
        raise _DoesNotFit(f"the server sends {name}, the tag is {wanted.value}; {_advice(sample, wanted)}")
    return value


def _as_text(name: str, sample: Sample, names: Mapping[int, str]) -> str | None:
    if name in _TEXTS:
        return _text(name, sample.value)
    if isinstance(sample.value, list | dict):
        return as_json(sample.value)
    if name in _INTEGERS and names:  # a number without a name is one that the server's list does not have
        return names.get(int(sample.value), str(sample.value))
    return None


def _advice(sample: Sample, wanted: ValueType) -> str:
    if sample.is_array:
        return "take one element with part: [0], or all of them as text with type: string"
    if isinstance(sample.value, dict):
        return f"take one member with part: {next(iter(sample.value), 'NAME')}, or all of them with type: string"
    if sample.value is None:
        return "the variable has no value yet"
    fitting = {"Boolean": "bool", "Float": "float32", "Double": "float64"}.get(sample.type_name)
    if sample.type_name in _INTEGERS:
        fitting = "uint" if sample.type_name.startswith(("U", "Byte")) else "int"
    if sample.type_name in _TEXTS:
        fitting = "string"
    return f"set its type to {fitting}" if fitting else "choose a variable of one of the simple types"


def _from_integer(name: str, value: int, wanted: ValueType, address: Address) -> Value:
    if wanted is ValueType.INT and _INT_MIN <= value <= _INT_MAX:
        return value
    if wanted is ValueType.UINT and 0 <= value <= _UINT_MAX:
        return value
    if wanted in (ValueType.INT, ValueType.UINT):
        other = "uint" if wanted is ValueType.INT else "int"
        raise _DoesNotFit(
            f"the server sends {name} {value}, which no {wanted.value} holds; set the tag's type to {other}"
        )
    scaled = (address.scale, address.offset) != (1.0, 0.0)
    result = _real(float(value), wanted, address)
    if not scaled and result != value:
        raise _DoesNotFit(
            f"the server sends {name} {value}, which no {wanted.value} holds exactly; set the tag's type to int"
        )
    return result


def _real(value: float, wanted: ValueType, address: Address) -> float:
    """Scaled, and rounded for float32. Neither NaN nor infinity is a value that a database or JSON can carry."""
    if not math.isfinite(value):
        raise _DoesNotFit(f"the server sends {value} with a good status, which is no number", Quality.BAD_OUT_OF_RANGE)
    result = value * address.scale + address.offset
    if wanted is ValueType.FLOAT32:
        try:
            result = struct.unpack("<f", struct.pack("<f", result))[0]
        except OverflowError:
            result = math.inf
    if not math.isfinite(result):
        raise _DoesNotFit(f"the value {value} is beyond {wanted.value} after scaling", Quality.BAD_OUT_OF_RANGE)
    return result


def _text(name: str, value: Any) -> str | None:
    """Text of what can be written as text. A null text is an empty one (OPC 10000-6, 5.1.2); a null date is none.

    The library keeps invalid UTF-8 as lone surrogates, which nothing downstream could encode: they become
    replacement characters.
    """
    if name == "LocalizedText" and not isinstance(value, str):
        value = getattr(value, "Text", None)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return None if name == "DateTime" else ""
