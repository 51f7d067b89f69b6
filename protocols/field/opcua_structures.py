"""From the library's values to plain ones: structures to dicts, by what the server says of their types. No sockets.

A server's own structures arrive as bytes. What they mean stands in the DataTypeDefinition of their types (OPC 10000-3,
8.48; the encoding is OPC 10000-6, 5.2.6 and 5.2.7). The library could load these types, too, but makes Python code of
what the server says and executes it; a server is not trusted that far.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import Enum
from typing import Any
from uuid import UUID

from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua import ua_binary

DEPTH_MAX = 16
ELEMENTS_MAX = 1_000_000  # an array in a structure; more is nonsense
_BUILT_IN_MAX = 25  # OPC 10000-6, 5.1.2: the ids of the built-in types are those of their nodes
_ENUMERATION = 29


class Undecodable(Exception):
    """Why a structure cannot be taken apart; half a sentence."""


@dataclasses.dataclass(slots=True)
class Types:
    """What is known of a server's data types, by their nodes; and those of some variables."""

    structures: dict[ua.NodeId, ua.StructureDefinition] = dataclasses.field(default_factory=dict)
    enumerations: dict[ua.NodeId, dict[int, str]] = dataclasses.field(default_factory=dict)
    bases: dict[ua.NodeId, ua.NodeId] = dataclasses.field(default_factory=dict)  # a subtype's next type above it
    encodings: dict[ua.NodeId, ua.NodeId] = dataclasses.field(default_factory=dict)  # encoding → data type
    of_variable: dict[ua.NodeId, ua.NodeId] = dataclasses.field(default_factory=dict)

    def add(self, data_type: ua.NodeId, definition: Any) -> None:
        """What a server answered as DataTypeDefinition; None where it has none."""
        if isinstance(definition, ua.StructureDefinition):
            self.structures[data_type] = definition
            self.encodings[definition.DefaultEncodingId] = data_type
        elif isinstance(definition, ua.EnumDefinition):
            self.enumerations[data_type] = {
                int(field.Value): str(field.Name or field.DisplayName.Text or field.Value)
                for field in definition.Fields or ()
            }

    def names(self, variable: ua.NodeId) -> Mapping[int, str]:
        """The names of an enumeration's values; empty where the variable is none, or its names are not known."""
        data_type = self.of_variable.get(variable)
        return {} if data_type is None else self.enumerations.get(data_type, {})

    def built_in(self, data_type: ua.NodeId) -> ua.VariantType | None:
        """The built-in type that a data type is, or is derived from."""
        for _ in range(DEPTH_MAX):
            if data_type in self.enumerations:
                return ua.VariantType.Int32
            if data_type.NamespaceIndex == 0 and isinstance(data_type.Identifier, int):
                if 0 < data_type.Identifier <= _BUILT_IN_MAX:
                    return ua.VariantType(data_type.Identifier)
                if data_type.Identifier == _ENUMERATION:
                    return ua.VariantType.Int32
            if data_type not in self.bases:
                return None
            data_type = self.bases[data_type]
        return None


def is_built_in(data_type: ua.NodeId) -> bool:
    """Whether there is nothing to ask about it."""
    number = data_type.Identifier
    return data_type.NamespaceIndex == 0 and isinstance(number, int) and number <= _BUILT_IN_MAX


def plain(value: Any, types: Types, depth: int = 0) -> Any:
    """bool, int, float, str, bytes, datetime, UUID, None, and lists and dicts of them. Raises Undecodable."""
    if isinstance(value, list | tuple):
        return [plain(each, types, depth) for each in value]
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, bool | int | float | str | bytes | datetime | UUID):
        return value
    if depth > DEPTH_MAX:
        raise Undecodable("it is nested too deeply")
    if isinstance(value, ua.ExtensionObject):
        return _structure(value, types, depth)
    if isinstance(value, ua.LocalizedText):
        return value.Text or ""
    if isinstance(value, ua.QualifiedName):
        return value.Name
    if isinstance(value, ua.StatusCode):
        return value.value
    if isinstance(value, ua.NodeId):
        return value.to_string()
    if isinstance(value, ua.Variant | ua.DataValue):
        return plain(value.Value, types, depth + 1)
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name), types, depth + 1) for field in dataclasses.fields(value)}
    raise Undecodable(f"it holds a {type(value).__name__}, which is not known here")


def _structure(value: ua.ExtensionObject, types: Types, depth: int) -> Any:
    if value.Body is None:
        return None
    data_type = types.encodings.get(value.TypeId)
    if data_type is None:
        raise Undecodable(f"the server does not say what its structure {value.TypeId.to_string()} is made of")
    data = Buffer(bytes(value.Body))
    try:
        found = _members(data, types.structures[data_type], types, depth + 1)
    except Undecodable:
        raise
    except Exception as error:  # the library's edge: its decoder raises whatever a stranger's bytes lead to
        raise Undecodable(f"its bytes do not fit its description ({error!r})") from error
    if len(data):
        raise Undecodable(f"it is {len(data)} bytes longer than its description")
    return found


def _members(data: Buffer, definition: ua.StructureDefinition, types: Types, depth: int) -> dict[str, Any]:
    """In the order of the definition; optional ones that are absent are None."""
    if depth > DEPTH_MAX:
        raise Undecodable("it is nested too deeply")
    kind, fields = definition.StructureType, definition.Fields or []
    if kind in (ua.StructureType.Union, ua.StructureType.UnionWithSubtypedValues):
        switch = int(ua_binary.Primitives.UInt32.unpack(data))
        if switch > len(fields):
            raise Undecodable(f"it is a union without a member {switch}")
        chosen = {} if switch == 0 else {fields[switch - 1].Name: _field(data, fields[switch - 1], types, depth)}
        return {str(field.Name): chosen.get(field.Name) for field in fields}
    optional = kind is ua.StructureType.StructureWithOptionalFields
    mask = int(ua_binary.Primitives.UInt32.unpack(data)) if optional else 0
    found: dict[str, Any] = {}
    bit = 0
    for field in fields:
        if optional and field.IsOptional:
            is_there = mask >> bit & 1
            bit += 1
            if not is_there:
                found[str(field.Name)] = None
                continue
        found[str(field.Name)] = _field(data, field, types, depth)
    return found


def _field(data: Buffer, field: ua.StructureField, types: Types, depth: int) -> Any:
    one = _reader(field.DataType, types, depth)
    if field.ValueRank < 1:
        return one(data)
    sizes = [_length(data)]
    if field.ValueRank > 1:  # a matrix: its dimensions, then its elements in one row
        sizes = [_length(data) for _ in range(sizes[0])]
    return _array(data, one, sizes)


def _array(data: Buffer, one: Callable[[Buffer], Any], sizes: list[int]) -> list[Any]:
    if len(sizes) > 1:
        return [_array(data, one, sizes[1:]) for _ in range(sizes[0])]
    return [one(data) for _ in range(sizes[0] if sizes else 0)]


def _length(data: Buffer) -> int:
    length = int(ua_binary.Primitives.Int32.unpack(data))
    if length > ELEMENTS_MAX:
        raise Undecodable(f"it holds an array of {length} elements")
    return max(0, length)  # −1 is a null array


def _reader(data_type: ua.NodeId, types: Types, depth: int) -> Callable[[Buffer], Any]:
    """What reads one element of this type."""
    nested = types.structures.get(data_type)
    if nested is not None:
        return lambda data: _members(data, nested, types, depth + 1)
    built_in = types.built_in(data_type)
    if built_in is None:
        raise Undecodable(f"the server does not say what its type {data_type.to_string()} is made of")
    return lambda data: plain(ua_binary.unpack_uatype(built_in, data), types, depth + 1)
