"""The outermost layer of a message: recognise by the first bytes, and unpack within bounds. Pure.

| first bytes        | what it is                                            |
|--------------------|-------------------------------------------------------|
| 28 B5 2F FD        | a Zstandard frame (RFC 8878)                          |
| 1F 8B              | gzip (RFC 1952)                                       |
| 78 xx, ≡ 0 mod 31  | zlib (RFC 1950)                                       |
| 80–9F, DC–DF       | MessagePack, a map or an array                        |
| 7B or white space  | JSON                                                  |

One compression may contain MessagePack or JSON; compression within compression is refused. What comes from strangers is
bounded in size before and after unpacking, and in depth; nothing here raises anything but FrameError.
"""

from __future__ import annotations

import json
import sys
import threading
import zlib
from itertools import chain
from typing import Any

import msgpack

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PAYLOAD_BYTES_MAX = 1 << 20
UNPACKED_BYTES_MAX = 16 << 20
DEPTH_MAX = 8

_COMPRESSION: dict[int, int] = {
    zstd.CompressionParameter.compression_level: 3,
    zstd.CompressionParameter.checksum_flag: 1,
}
# 8 MiB; for a frame that declares its size, the decoder takes no more memory than that, whatever the window.
_UNDECLARED: dict[int, int] = {zstd.DecompressionParameter.window_log_max: 23}
_DECLARED: dict[int, int] = {
    zstd.DecompressionParameter.window_log_max: zstd.DecompressionParameter.window_log_max.bounds()[1]
}

_SMALL_BYTES = 32 << 10
"""To set up a compressor costs more than to compress so much; the compressor of more would keep a megabyte."""
_OF_THREAD = threading.local()

_ZSTD = b"\x28\xb5\x2f\xfd"
_GZIP = b"\x1f\x8b"
_NESTS = frozenset({dict, list})
_JSON_FIRST = b"{ \t\r\n"


class FrameError(ValueError):
    """The bytes are no message. The text says why in one sentence."""


def pack(value: Any) -> bytes:
    """MessagePack in a Zstandard frame with content size and checksum."""
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return compress(packed)


def compress(raw: bytes) -> bytes:
    """A Zstandard frame with content size and checksum. Each thread keeps its compressor for what is small."""
    if len(raw) > _SMALL_BYTES:
        return zstd.compress(raw, options=_COMPRESSION)
    compressor = getattr(_OF_THREAD, "compressor", None)
    if compressor is None:
        compressor = _OF_THREAD.compressor = zstd.ZstdCompressor(options=_COMPRESSION)
    frame: bytes = compressor.compress(raw, zstd.ZstdCompressor.FLUSH_FRAME)
    return frame


def unpack(payload: bytes) -> Any:
    """The value in a message: a dict or a list, at most DEPTH_MAX deep. Raises FrameError."""
    if not payload:
        raise FrameError("the message is empty")
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise FrameError(f"a message of {len(payload)} bytes is over the limit of {PAYLOAD_BYTES_MAX}")
    raw = decompress(payload)
    if _is_msgpack(raw):
        value = _from_msgpack(raw)
    elif raw[:1] in _JSON_FIRST and raw:
        value = _from_json(raw)
    else:
        raise FrameError(f"unknown form: the first bytes are {raw[:4].hex(' ') or 'missing'}")
    _check_depth(value)
    return value


def decompress(payload: bytes) -> bytes:
    """What is in one of the three compressions, or the payload itself. Raises FrameError."""
    if payload.startswith(_ZSTD):
        return _zstd(payload)
    if payload.startswith(_GZIP):
        return _deflate(payload, wbits=31, what="gzip")
    if payload[0] == 0x78 and len(payload) > 1 and (payload[0] * 256 + payload[1]) % 31 == 0:
        return _deflate(payload, wbits=15, what="zlib")
    return payload


def _zstd(payload: bytes) -> bytes:
    try:
        declared = zstd.get_frame_info(payload).decompressed_size
        if declared is not None and declared > UNPACKED_BYTES_MAX:
            raise FrameError(f"zstd: declares {declared} bytes, over the limit of {UNPACKED_BYTES_MAX}")
        frame = zstd.ZstdDecompressor(options=_UNDECLARED if declared is None else _DECLARED)
        raw = frame.decompress(payload, UNPACKED_BYTES_MAX + 1)
    except zstd.ZstdError as error:
        raise FrameError(f"zstd: {error}") from None
    if len(raw) > UNPACKED_BYTES_MAX:
        raise FrameError(f"zstd: expands to more than the limit of {UNPACKED_BYTES_MAX} bytes")
    if not frame.eof:
        raise FrameError("zstd: the frame is cut short")
    if frame.unused_data:
        raise FrameError("zstd: more bytes follow the end of the frame")
    return raw


def _deflate(payload: bytes, wbits: int, what: str) -> bytes:
    stream = zlib.decompressobj(wbits)
    try:
        raw = stream.decompress(payload, UNPACKED_BYTES_MAX + 1)
    except zlib.error as error:
        raise FrameError(f"{what}: {error}") from None
    if len(raw) > UNPACKED_BYTES_MAX:
        raise FrameError(f"{what}: expands to more than the limit of {UNPACKED_BYTES_MAX} bytes")
    if not stream.eof:
        raise FrameError(f"{what}: the data is cut short")
    if stream.unused_data:
        raise FrameError(f"{what}: more bytes follow the end of the data")
    return raw


def _is_msgpack(raw: bytes) -> bool:
    first = raw[0] if raw else 0
    return 0x80 <= first <= 0x9F or 0xDC <= first <= 0xDF


def _unique(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    if not pairs:
        return {}
    if not all(type(key) in (str, int) for key, _ in pairs):
        raise FrameError("a map has a key that is neither a text nor a whole number")
    found = dict(pairs)
    if len(found) != len(pairs):
        raise FrameError("a key stands twice in one map")
    return found


def _no_extension(code: int, _data: bytes) -> Any:
    raise FrameError(f"MessagePack: extension type {code} is not part of any message")


def _from_msgpack(raw: bytes) -> Any:
    try:
        return msgpack.unpackb(
            raw, raw=False, strict_map_key=False, object_pairs_hook=_unique, ext_hook=_no_extension, timestamp=0
        )
    except FrameError:
        raise
    except ValueError as error:  # every one of msgpack's own errors, and UnicodeDecodeError
        raise FrameError(f"MessagePack: {str(error) or type(error).__name__}") from None


def _no_constant(name: str) -> Any:
    raise FrameError(f"JSON: {name} is not a number")


def _from_json(raw: bytes) -> Any:
    try:
        return json.loads(raw.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except FrameError:
        raise
    except RecursionError:
        raise FrameError(f"JSON: nested deeper than {DEPTH_MAX}") from None
    except ValueError as error:
        raise FrameError(f"JSON: {error}") from None


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEPTH_MAX):
        kinds = set(map(type, level))
        if kinds.isdisjoint(_NESTS):
            return
        if not kinds <= _NESTS:
            level = [outer for outer in level if type(outer) in _NESTS]
        level = list(chain.from_iterable([outer.values() if type(outer) is dict else outer for outer in level]))
    if level:
        raise FrameError(f"nested deeper than {DEPTH_MAX}")
