"""The answer to a Read request, taken apart so that the bytes of each value stay in sight. Pure.

The encoding is OPC 10000-6: a ReadResponse is its type, a header and an array of DataValues; a DataValue begins with a
mask, and where its lowest bit is set with a Variant, whose first byte says the type (0x0B: Double) and whether it is an
array (0x80). Numbers are little-endian.
"""

from __future__ import annotations

from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import Primitives, nodeid_from_binary, struct_from_binary, variant_from_binary

_HAS_VALUE = 0x01


def values_with_bytes(data: Buffer) -> list[tuple[ua.DataValue, bytes]]:
    """Each value with its Variant as it came; b"" where there is none. Raises what the library's decoder raises."""
    nodeid_from_binary(data)
    header = struct_from_binary(ua.ResponseHeader, data)
    header.ServiceResult.check()
    return [_value(data) for _ in range(Primitives.Int32.unpack(data))]


def _value(data: Buffer) -> tuple[ua.DataValue, bytes]:
    before = data.copy()
    value: ua.DataValue = struct_from_binary(ua.DataValue, data)
    if not before.read(1)[0] & _HAS_VALUE:
        return value, b""
    behind = before.copy()
    variant_from_binary(behind)
    return value, before.read(len(before) - len(behind))
