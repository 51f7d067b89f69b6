"""A second decoder, written from docs/wire.md alone: it imports nothing of ours, and shares no idea with ours.

It gives the plain structures of docs/wire.md, section 11, as the JSON files of the test vectors have them, or raises
Refused. Clarity before speed: one cursor per stream, one number after the other.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
import unicodedata
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import msgpack
import zstandard

MIB = 1 << 20
TIME_MS_MAX = 253_402_300_799_999
TYPES = ("bool", "int", "uint", "float32", "float64", "string")
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class Refused(Exception):
    """`why`: frame, version, limit or content (section 11)."""

    def __init__(self, why: str, what: str) -> None:
        super().__init__(f"{why}: {what}")
        self.why = why


class Missing(Exception):
    """`refs`: references of definitions that are not known, hexadecimal."""

    def __init__(self, refs: list[str]) -> None:
        super().__init__(f"missing: {refs}")
        self.refs = refs


def need(condition: bool, what: str, why: str = "content") -> None:
    if not condition:
        raise Refused(why, what)


def is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_printable(text: str) -> bool:
    return all(c == " " or unicodedata.category(c)[0] not in "CZ" for c in text)


def check_text(value: Any, characters_max: int, what: str, printable: bool = False) -> str:
    need(isinstance(value, str), f"{what} is no text")
    need(len(value) <= characters_max, f"{what} is too long", "limit")
    need(not printable or is_printable(value), f"{what} is not printable")
    return str(value)


# --- section 2: recognition and unpacking ----------------------------------------------------------------------------


def unpack(payload: bytes) -> Any:
    need(len(payload) <= MIB, "the payload is too long", "limit")
    raw = decompress(payload)
    need(raw != b"", "nothing inside", "frame")
    first = raw[0]
    if 0x80 <= first <= 0x9F or 0xDC <= first <= 0xDF:
        value = from_messagepack(raw)
    else:
        need(first in b"{ \t\n\r", "unknown form", "frame")
        value = from_json(raw)
    need(depth(value) <= 8, "nested too deep", "limit")
    return value


HISTORICAL = bytes.fromhex("50 2a 4d 18 01 00 00 00 01")
CLOCK = bytes.fromhex("51 2a 4d 18 18 00 00 00")


def decompress(payload: bytes) -> bytes:
    try:
        if payload[:4] == b"\x28\xb5\x2f\xfd":
            return from_zstd(payload)
        if payload[:2] == b"\x1f\x8b":
            return inflate(payload, 16 + zlib.MAX_WBITS)
        if payload[:1] == b"\x78" and len(payload) > 1 and int.from_bytes(payload[:2], "big") % 31 == 0:
            return inflate(payload, zlib.MAX_WBITS)
    except (zstandard.ZstdError, zlib.error) as error:
        raise Refused("frame", str(error)) from None
    return payload


def from_zstd(payload: bytes) -> bytes:
    declared = zstandard.frame_content_size(payload)
    need(declared <= 16 * MIB, "declares too much", "limit")
    if declared >= 0:
        return zstandard.ZstdDecompressor().decompress(payload, allow_extra_data=False)
    out = bytearray()
    stream = zstandard.ZstdDecompressor(max_window_size=8 * MIB).decompressobj()
    for at in range(len(payload)):
        need(not stream.eof, "bytes after the frame", "frame")
        out += stream.decompress(payload[at : at + 1])
        need(len(out) <= 16 * MIB, "expands to too much", "limit")
    need(stream.eof, "cut short", "frame")
    return bytes(out)


def inflate(payload: bytes, window_bits: int) -> bytes:
    stream = zlib.decompressobj(window_bits)
    out = stream.decompress(payload, 16 * MIB + 1)
    need(len(out) <= 16 * MIB, "expands to too much", "limit")
    need(stream.eof and not stream.unused_data, "cut short, or followed by something", "frame")
    return out


def unique(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    need(all(isinstance(key, str) or is_whole(key) for key, _ in pairs), "a strange key", "frame")
    need(len({key for key, _ in pairs}) == len(pairs), "a key twice", "frame")
    return dict(pairs)


def refuse_extension(code: int, _: bytes) -> Any:
    raise Refused("frame", f"extension type {code}")


def from_messagepack(raw: bytes) -> Any:
    try:
        value = msgpack.unpackb(raw, strict_map_key=False, object_pairs_hook=unique, ext_hook=refuse_extension)
    except ValueError as error:
        raise Refused("frame", str(error)) from None
    return value


def refuse_constant(name: str) -> Any:
    raise Refused("frame", name)


def from_json(raw: bytes) -> Any:
    try:
        return json.loads(raw.decode("utf-8"), object_pairs_hook=unique, parse_constant=refuse_constant)
    except RecursionError:
        raise Refused("limit", "nested too deep") from None
    except ValueError as error:
        raise Refused("frame", str(error)) from None


def depth(value: Any) -> int:
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return 1 + max(map(depth, inner), default=0)


# --- sections 4 and 5: a batch ---------------------------------------------------------------------------------------


def decode_telemetry(payload: bytes, known: Mapping[str, dict[str, Any]] | None = None) -> dict[str, Any]:
    """The `batch` of a telemetry message. `known`: definitions (of decode_definition) by reference. Raises Missing."""
    value = unpack(without_marks(payload)[0])
    if not isinstance(value, list):
        return from_map(value)
    if value and is_whole(value[0]) and value[0] == 2:
        return from_referring(value, known or {})
    return from_array(value)


def without_marks(payload: bytes) -> tuple[bytes, dict[str, Any]]:
    """(the message, what its marks say)."""
    said: dict[str, Any] = {}
    if payload.startswith(HISTORICAL):
        payload, said["historical"] = payload[9:], True
    if payload.startswith(CLOCK):
        need(len(payload) >= 32, "half a mark", "frame")
        zero_us = int.from_bytes(payload[24:32], "little", signed=True)
        need(abs(zero_us) <= TIME_MS_MAX * 1000, "a mark's zero", "frame")
        payload, said["clock"] = payload[32:], {"span": payload[8:24].hex(), "zero_us": zero_us}
    return payload, said


def plain_whole(n: int) -> int | str:
    return n if -(2**53) <= n <= 2**53 else str(n)


def plain_float(value: float, width: int) -> float | str:
    if math.isfinite(value) and not (value == 0 and math.copysign(1, value) < 0):
        return value
    return f"0x{struct.pack('>f' if width == 4 else '>d', value).hex()}"


def check_head(gateway: Any, seq: Any) -> None:
    check_text(gateway, 64, "gateway", printable=True)
    need(is_whole(seq), "seq is no whole number")
    need(1 <= seq <= 2**63 - 1, "seq", "limit")


def from_map(value: dict[Any, Any]) -> dict[str, Any]:
    version, timestamp = value.get("schemaVersion"), value.get("timestamp")
    need(is_whole(version) and version == 1, "schemaVersion", "version")
    need(is_whole(timestamp), "timestamp is no whole number")
    need(0 <= int(timestamp or 0) <= TIME_MS_MAX, "timestamp", "limit")
    gateway, epoch, seq = value.get("gateway", ""), value.get("epoch", ""), value.get("seq")
    check_head(gateway, seq)
    check_text(epoch, 64, "epoch", printable=True)
    values, quality = value.get("values"), value.get("quality", {})
    if not isinstance(values, dict) or not isinstance(quality, dict):
        raise Refused("content", "values or quality is no map")
    need(1 <= len(values) <= 20_000, "values", "limit")
    need(set(quality) <= set(values), "a quality without a value")
    columns = [json_column(name, found, quality.get(name)) for name, found in values.items()]
    block = {"device": "", "times_us": [plain_whole(int(timestamp or 0) * 1000)], "columns": columns}
    return {"gateway": gateway, "epoch": epoch, "seq": plain_whole(int(seq or 0)), "blocks": [block]}


def json_column(name: Any, value: Any, quality: Any) -> dict[str, Any]:
    check_text(name, 128, "name", printable=True)
    need(name != "", "an empty name", "limit")
    if quality is None:
        quality = 0x80000000 if value is None else 0
    elif isinstance(quality, str):
        need(quality in ("good", "uncertain", "bad"), "a strange word for a quality")
        quality = {"good": 0, "uncertain": 0x40000000, "bad": 0x80000000}[quality]
    need(is_whole(quality) and 0 <= quality < 2**32, "quality")
    kind, plain = json_value(value)
    codes = [quality] if quality else None
    return {
        "name": name, "type": kind, "unit": "", "rows": None, "values": [plain], "quality": codes, "reasons": {}
    }  # fmt: skip


def json_value(value: Any) -> tuple[str, Any]:
    if value is None:
        return "float64", None
    if isinstance(value, bool):
        return "bool", value
    if isinstance(value, str):
        need(not any("\ud800" <= character <= "\udfff" for character in value), "half a surrogate pair")
        return "string", check_text(value, 4096, "a text")
    if isinstance(value, int):
        if -(2**53) <= value <= 2**53:
            return "float64", float(value)
        need(-(2**63) <= value < 2**64, "a number beyond 64 bits")
        return ("int" if value < 2**63 else "uint"), plain_whole(value)
    need(isinstance(value, float) and math.isfinite(value), "a value that no tag can have")
    return "float64", plain_float(value, 8)


def from_array(value: list[Any]) -> dict[str, Any]:
    need(bool(value) and is_whole(value[0]) and value[0] == 1, "schemaVersion", "version")
    need(len(value) == 5, "not five parts")
    _, gateway, epoch, seq, blocks = value
    check_head(gateway, seq)
    need(isinstance(epoch, bytes), "epoch")
    need(len(epoch) <= 32, "epoch", "limit")
    need(isinstance(blocks, list), "blocks")
    need(len(blocks) <= 1000, "blocks", "limit")
    plain, readings = [], 0
    for block in blocks:
        decoded = BlockDecoder(whole_block(block), 2_000_000 - readings).decode()
        readings += sum(len(column["values"]) for column in decoded["columns"])
        plain.append(decoded)
    return {"gateway": gateway, "epoch": epoch.hex(), "seq": plain_whole(seq), "blocks": plain}


# --- sections 5.6 and 5.7: definitions and what refers to them -------------------------------------------------------


def decode_definition(payload: bytes) -> dict[str, Any]:
    """The `definition` of a definition message."""
    value = unpack(payload)
    if not isinstance(value, list):
        raise Refused("content", "a definition is no array")
    need(bool(value) and is_whole(value[0]) and value[0] == 1, "the definition's version", "version")
    need(len(value) == 11, "not eleven parts")
    _, gateway, epoch, device, group, time_us, names, types, units, exponents, firsts = value
    for said in (gateway, device, group):
        check_text(said, 64, "gateway, device or group", printable=True)
    need(isinstance(epoch, bytes) and epoch != b"", "epoch")
    need(len(epoch) <= 32, "epoch", "limit")
    need(is_whole(time_us), "time")
    need(0 <= time_us <= TIME_MS_MAX * 1000, "time", "limit")
    kinds, unit_texts = check_tags(names, types, units)
    need(isinstance(exponents, bytes) and len(exponents) == len(names) and isinstance(firsts, bytes), "bases")
    numbers = leb128(firsts)
    need(len(numbers) == len(names), "firsts")
    tags = []
    for name, kind, unit, exponent, number in zip(names, kinds, unit_texts, exponents, numbers, strict=True):
        first = unzigzag(number)
        need(exponent <= (15 if kind in ("float32", "float64") else 0), "an exponent")
        if exponent == 15:
            first %= 2**64
            need(kind == "float64" or first < 2**32, "a pattern of more than 4 bytes")
        tags.append({"name": name, "type": kind, "unit": unit, "exponent": exponent, "first": plain_whole(first)})
    return {
        "ref": hashlib.blake2b(payload, digest_size=6).hexdigest(), "gateway": gateway, "epoch": epoch.hex(),
        "device": device, "group": group, "time_us": plain_whole(time_us), "tags": tags,
    }  # fmt: skip


def from_referring(value: list[Any], known: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    need(len(value) == 3, "not three parts")
    _, seq, blocks = value
    need(isinstance(blocks, list), "blocks")
    need(1 <= len(blocks) <= 1000, "blocks", "limit")
    for block in blocks:
        need(isinstance(block, list) and bool(block), "a block")
        need(isinstance(block[0], bytes) and len(block[0]) == 6, "a reference")
    refs = [block[0].hex() for block in blocks]
    missing = [ref for ref in dict.fromkeys(refs) if ref not in known]
    if missing:
        raise Missing(missing)
    gateway, epoch = known[refs[0]]["gateway"], known[refs[0]]["epoch"]
    need(all((known[ref]["gateway"], known[ref]["epoch"]) == (gateway, epoch) for ref in refs), "two senders")
    check_head(gateway, seq)
    plain, readings = [], 0
    for ref, block in zip(refs, blocks, strict=True):
        decoded = BlockDecoder(referring_block(block, known[ref]), 2_000_000 - readings).decode()
        readings += sum(len(column["values"]) for column in decoded["columns"])
        plain.append(decoded)
    return {"gateway": gateway, "epoch": epoch, "seq": plain_whole(seq), "blocks": plain}


def referring_block(block: list[Any], definition: dict[str, Any]) -> dict[str, Any]:
    """The parts of a block, defaults filled in from its definition."""
    need(2 <= len(block) <= 7, "not two to seven parts")
    parts = dict(enumerate(block))
    streams, rows, modes, extras, exceptions, steps = (parts.get(at) for at in range(1, 7))
    tags = definition["tags"]
    if steps is not None:
        need(isinstance(steps, list), "positions")
        at = 0
        positions: list[int] = []
        for step in steps:
            need(is_whole(step) and step >= (1 if positions else 0), "a step")
            at += step
            positions.append(at)
        need(not positions or positions[-1] < len(tags), "a position beyond the definition")
        tags = [tags[position] for position in positions]
    if modes is None:
        modes = bytes([3, *(usual_mode(tag) for tag in tags if tag["type"] not in ("bool", "string"))])
    if not isinstance(streams, list) or not 1 <= len(streams) <= 5:
        raise Refused("content", "streams")
    return {
        "device": definition["device"],
        "rows": 1 if rows is None else rows,
        "names": [tag["name"] for tag in tags],
        "types": [tag["type"] for tag in tags],
        "units": [tag["unit"] for tag in tags],
        "streams": [modes, *streams, *[b""] * (5 - len(streams))],
        "extras": [] if extras is None else extras,
        "exceptions": {} if exceptions is None else exceptions,
        "bases": [(tag["exponent"], int(tag["first"])) for tag in tags],
        "time_us": int(definition["time_us"]),
    }


def usual_mode(tag: dict[str, Any]) -> int:
    if tag["exponent"] == 15:
        return 0x3F if tag["type"] == "float32" else 0x4F
    return int(tag["exponent"])


def whole_block(block: Any) -> dict[str, Any]:
    """The parts of a block that can be decoded alone."""
    need(isinstance(block, list) and len(block) == 8, "a block is no array of 8")
    device, rows, names, types, units, streams, extras, exceptions = block
    check_text(device, 64, "device")
    kinds, unit_texts = check_tags(names, types, units)
    return {
        "device": device,
        "rows": rows,
        "names": names,
        "types": kinds,
        "units": unit_texts,
        "streams": streams,
        "extras": extras,
        "exceptions": exceptions,
        "bases": [(0, 0)] * len(names),
        "time_us": 0,
    }


def check_tags(names: Any, types: Any, units: Any) -> tuple[list[str], list[str]]:
    """Types as words, and units."""
    need(isinstance(names, list), "names")
    need(len(names) <= 20_000, "names", "limit")
    for name in names:
        check_text(name, 128, "name", printable=True)
        need(name != "", "an empty name", "limit")
    need(len(set(names)) == len(names), "a name twice")
    need(isinstance(types, bytes) and len(types) == len(names) and all(t < 6 for t in types), "types")
    return [TYPES[t] for t in types], runs(units, len(names), is_text)


def runs(value: Any, length: int, fits: Callable[[Any], bool]) -> list[Any]:
    need(isinstance(value, list) and len(value) % 2 == 0, "runs are no pairs")
    out: list[Any] = []
    for count, item in zip(value[0::2], value[1::2], strict=True):
        need(is_whole(count) and count >= 1 and len(out) + count <= length, "a run's count")
        need(fits(item), "a run's value")
        out += [item] * count
    need(len(out) == length, "runs of another length")
    return out


def is_text(value: Any) -> bool:
    if isinstance(value, str):
        check_text(value, 4096, "a text")
        return True
    return False


def unzigzag(z: int) -> int:
    return z // 2 if z % 2 == 0 else -(z + 1) // 2


class Stream:
    """Unsigned numbers of `width` bytes, un-shuffled, taken one by one."""

    def __init__(self, data: bytes, width: int) -> None:
        need(len(data) % width == 0, "a stream of a broken length")
        self.count = len(data) // width
        self._data, self._width, self._at = data, width, 0

    def next(self) -> int:
        need(self._at < self.count, "a stream ends too early")
        planes = range(self._width)
        number = sum(self._data[p * self.count + self._at] << 8 * p for p in planes)
        self._at += 1
        return number

    def is_used_up(self) -> bool:
        return self._at == self.count


def leb128(data: bytes) -> list[int]:
    numbers, start = [], 0
    for at, byte in enumerate(data):
        need(at - start < 10, "an integer of more than 10 bytes")
        if byte < 0x80:
            parts = enumerate(data[start : at + 1])
            numbers.append(sum((part & 0x7F) << 7 * place for place, part in parts) % 2**64)
            start = at + 1
    need(start == len(data), "an integer that does not end")
    return numbers


class BlockDecoder:
    """Section 5.2 to 5.4, with the bases of 5.7 (0 where there are none)."""

    def __init__(self, block: dict[str, Any], readings_max: int) -> None:
        self.device, self.rows, self.names = block["device"], block["rows"], block["names"]
        self.types, self.units = block["types"], block["units"]
        self.extras, self.exceptions = block["extras"], block["exceptions"]
        self.bases, self.time_us = block["bases"], block["time_us"]
        self.readings_max = readings_max
        streams = block["streams"]
        need(is_whole(self.rows), "rows")
        need(0 <= self.rows <= 100_000, "rows", "limit")
        need(isinstance(self.extras, list), "extras")
        need(isinstance(self.exceptions, dict), "exceptions")
        need(all(is_whole(at) and 0 <= at < len(self.names) for at in self.exceptions), "an exception of no column")
        need(isinstance(streams, list) and len(streams) == 6, "streams")
        need(all(isinstance(stream, bytes) for stream in streams), "streams")
        self.extras = list(self.extras)
        self.modes = list(streams[0])
        self.firsts = leb128(streams[1])
        self.streams = {width: Stream(streams[2 + at], width) for at, width in enumerate((1, 2, 4, 8))}

    def decode(self) -> dict[str, Any]:
        scale, width = self.mode()
        need(scale in (0, 3, 6), "a scale of times")
        times_us = [n * 10**scale for n in self.integers(self.rows, width, self.time_us // 10**scale)]
        need(all(0 <= time_us <= TIME_MS_MAX * 1000 for time_us in times_us), "a time", "limit")
        columns = [self.column(at) for at in range(len(self.names))]
        need(not self.modes and not self.firsts and not self.extras, "something is left over")
        need(all(stream.is_used_up() for stream in self.streams.values()), "a stream has something left over")
        return {"device": self.device, "times_us": [plain_whole(t) for t in times_us], "columns": columns}

    def mode(self) -> tuple[int, int]:
        need(bool(self.modes), "a mode is missing")
        mode = self.modes.pop(0)
        need(mode >> 4 <= 4, "a strange width")
        return mode & 15, (0, 1, 2, 4, 8)[mode >> 4]

    def integers(self, count: int, width: int, base: int) -> list[int]:
        """Signed."""
        if count == 0:
            return []
        need(bool(self.firsts), "a first number is missing")
        numbers = [base + unzigzag(self.firsts.pop(0))]
        for _ in range(count - 1):
            difference = unzigzag(self.streams[width].next()) if width else 0
            numbers.append(numbers[-1] + difference)
        return [(n + 2**63) % 2**64 - 2**63 for n in numbers]

    def column(self, at: int) -> dict[str, Any]:
        rows, codes, gone, reasons = None, None, None, {}
        count = self.rows
        if at in self.exceptions:
            exception = self.exceptions[at]
            need(isinstance(exception, list) and len(exception) == 4, "an exception is no array of 4")
            steps, quality, absent, reasons = exception
            if steps is not None:
                rows = self.row_numbers(steps)
                count = len(rows)
            if quality is not None:
                codes = runs(quality, count, lambda code: is_whole(code) and 0 <= code < 2**32)
            if absent is not None:
                gone = runs(absent, count, lambda flag: is_whole(flag) and flag in (0, 1))
        self.readings_max -= count
        need(self.readings_max >= 0, "readings", "limit")
        return {
            "name": self.names[at],
            "type": self.types[at],
            "unit": self.units[at],
            "rows": rows,
            "values": self.values(at, gone or [0] * count),
            "quality": codes if codes is not None and any(codes) else None,
            "reasons": self.reasons(reasons, count),
        }

    def row_numbers(self, steps: Any) -> list[int]:
        need(isinstance(steps, list), "rows")
        rows: list[int] = []
        for step in steps:
            need(is_whole(step) and step >= (1 if rows else 0), "a step")
            rows.append(step + (rows[-1] if rows else 0))
        need(not rows or rows[-1] < self.rows, "a row beyond the block's")
        return rows

    def reasons(self, reasons: Any, count: int) -> dict[str, str]:
        need(isinstance(reasons, dict), "reasons")
        need(all(is_whole(at) and 0 <= at < count and is_text(text) for at, text in reasons.items()), "a reason")
        return {str(at): reasons[at] for at in sorted(reasons)}

    def values(self, at: int, gone: list[int]) -> list[Any]:
        found = self.present(self.types[at], gone.count(0), *self.bases[at])
        return [None if absent else found.pop(0) for absent in gone]

    def present(self, kind: str, count: int, usual: int, first: int) -> list[Any]:
        """`usual`: the exponent of the base, which counts for that exponent only."""
        if kind in ("bool", "string"):
            need(bool(self.extras), "an extra is missing")
            extra = self.extras.pop(0)
            if kind == "string":
                return runs(extra, count, is_text)
            need(isinstance(extra, bytes) and len(extra) == math.ceil(count / 8), "bits")
            return [extra[i // 8] >> i % 8 & 1 == 1 for i in range(count)]
        nibble, width = self.mode()
        if count == 0:
            return []
        base = first if nibble == usual else 0
        if kind in ("int", "uint"):
            need(nibble == 0, "an exponent of whole numbers")
            numbers = self.integers(count, width, base)
            return [plain_whole(n % 2**64 if kind == "uint" else n) for n in numbers]
        size = 4 if kind == "float32" else 8
        if nibble < 15:
            quotients = [n / 10**nibble for n in self.integers(count, width, base)]
            floats = [self.as_binary(quotient, size) for quotient in quotients]
        else:
            need(width == size, "patterns of another width")
            floats = self.patterns(count, size, base)
        return [plain_float(value, size) for value in floats]

    @staticmethod
    def as_binary(value: float, size: int) -> float:
        return float(struct.unpack("<f", struct.pack("<f", value))[0]) if size == 4 else value

    def patterns(self, count: int, size: int, pattern: int) -> list[float]:
        floats = []
        for _ in range(count):
            pattern ^= self.streams[size].next()
            floats.append(struct.unpack("<f" if size == 4 else "<d", pattern.to_bytes(size, "little"))[0])
        return floats


# --- sections 7 and 8: status and confirm ----------------------------------------------------------------------------

Check = Callable[[Any], Any]
NEEDED = object()


def one_of(*words: Any) -> Check:
    def check(value: Any) -> Any:
        need(not isinstance(value, bool) and value in words, f"none of {words}")
        return value

    return check


def version(value: Any) -> Any:
    need(is_whole(value) and value == 1, "schemaVersion", "version")
    return value


def whole(low: int | None = None, high: int | None = None) -> Check:
    def check(value: Any) -> Any:
        need(is_whole(value), "no whole number")
        need((low is None or value >= low) and (high is None or value <= high), "a number", "limit")
        return value

    return check


def text(characters_max: int) -> Check:
    return lambda value: check_text(value, characters_max, "a text")


def name(value: Any) -> Any:
    need(isinstance(value, str) and NAME.fullmatch(value) is not None, "no name")
    return value


def flag(value: Any) -> Any:
    need(isinstance(value, bool), "neither true nor false")
    return value


def or_null(check: Check) -> Check:
    return lambda value: None if value is None else check(value)


def array(entries_max: int, *entry: Check) -> Check:
    def check(value: Any) -> Any:
        need(isinstance(value, list), "no array")
        need(len(value) <= entries_max, "too many entries", "limit")
        need(all(isinstance(each, list) and len(each) == len(entry) for each in value), "an entry")
        return [[test(part) for test, part in zip(entry, each, strict=True)] for each in value]

    return check


def table(check: Check) -> Check:
    def check_all(value: Any) -> Any:
        need(isinstance(value, dict), "no object")
        need(len(value) <= 1000, "too many entries", "limit")
        return {name(key): check(found) for key, found in value.items()}

    return check_all


def record(**keys: tuple[Check, Any]) -> Check:
    def check(value: Any) -> Any:
        need(isinstance(value, dict), "no object")
        need(all(key in value for key, (_, default) in keys.items() if default is NEEDED), "a key is missing")
        return {key: test(value[key]) if key in value else default for key, (test, default) in keys.items()}

    return check


def references(value: Any) -> Any:
    need(isinstance(value, list), "no array")
    need(len(value) <= 100, "too many references", "limit")
    need(all(isinstance(ref, str) and re.fullmatch("[0-9a-f]{2,64}", ref) for ref in value), "a reference")
    return value


def at_most(entries_max: int, check: Check) -> Check:
    def check_all(value: Any) -> Any:
        need(isinstance(value, dict), "no object")
        need(len(value) <= entries_max, "too many entries", "limit")
        return {text(64)(key): check(found) for key, found in value.items()}

    return check_all


def each(entries_max: int, check: Check) -> Check:
    def check_all(value: Any) -> Any:
        need(isinstance(value, list), "no array")
        need(len(value) <= entries_max, "too many entries", "limit")
        return [check(found) for found in value]

    return check_all


def span_or_empty(value: Any) -> Any:
    need(isinstance(value, str) and re.fullmatch("([0-9a-f]{32})?", value) is not None, "a span")
    return value


def zeros(value: Any) -> Any:
    need(isinstance(value, dict), "no object")
    need(len(value) <= 16, "too many entries", "limit")
    need(all(re.fullmatch("[0-9a-f]{32}", span) for span in value), "a span")
    return {span: whole(0, TIME_MS_MAX * 1000)(zero_us) for span, zero_us in value.items()}


COUNT = whole(0)
SEQ = whole(0, 2**63 - 1)
BUFFER = record(
    mode=(one_of("disk", "memory"), "disk"),
    queuedMessages=(COUNT, 0),
    keptBytes=(COUNT, 0),
    bytes=(COUNT, 0),
    limitBytes=(COUNT, 0),
    oldestSec=(or_null(COUNT), None),
    fullInSec=(or_null(COUNT), None),
)
NUMBERS = record(
    lastSeq=(SEQ, NEEDED), sentSeq=(SEQ, 0), sentHighest=(SEQ, 0), dropped=(array(200, SEQ, SEQ, text(500)), [])
)
STATUS = record(
    schemaVersion=(version, 1),
    timestamp=(whole(0, TIME_MS_MAX), NEEDED),
    state=(one_of("online", "offline"), NEEDED),
    reason=(or_null(text(500)), None),
    session=(SEQ, 0),
    epoch=(text(64), ""),
    instance=(text(64), ""),
    host=(text(255), ""),
    gateway=(or_null(record(thingName=(name, NEEDED), version=(text(64), NEEDED), uptimeSec=(COUNT, NEEDED))), None),
    health=(
        or_null(
            record(
                internet=(one_of("ok", "down", "unknown"), "unknown"),
                mqtt=(one_of("ok", "down"), "ok"),
                plcLink=(one_of("ok", "degraded", "down"), "ok"),
                buffer=(BUFFER, BUFFER({})),
            )
        ),
        None,
    ),
    machines=(table(NUMBERS), {}),
    others=(table(at_most(20, NUMBERS)), {}),
    devices=(
        table(
            record(
                machine=(name, NEEDED),
                state=(one_of("ok", "bad", "away", "starting"), NEEDED),
                since=(whole(0, TIME_MS_MAX), NEEDED),
                reason=(text(500), ""),
                readings=(COUNT, 0),
            )
        ),
        {},
    ),
    droppedCount=(COUNT, 0),
    droppedReadings=(COUNT, 0),
    clock=(
        or_null(
            record(synchronised=(or_null(flag), None), span=(span_or_empty, ""), marked=(COUNT, 0), zeros=(zeros, {}))
        ),
        None,
    ),
    configHash=(text(64), ""),
    certificateDaysLeft=(or_null(whole()), None),
)
ACCOUNT = record(
    epoch=(text(64), NEEDED),
    through=(SEQ, NEEDED),
    highest=(SEQ, 0),
    missing=(array(100, SEQ, SEQ), []),
    definitions=(references, []),
)
CONFIRM = record(
    schemaVersion=(version, 1),
    timestamp=(whole(), NEEDED),
    machines=(table(ACCOUNT), NEEDED),
    others=(table(each(20, ACCOUNT)), {}),
    fenced=(text(500), ""),
    fencedInstance=(text(64), ""),
    receiver=(text(64), ""),
)


def decode_status(payload: bytes) -> dict[str, Any]:
    """The `status` of a status message or will."""
    need(len(payload) <= 131_072, "the status is too long", "limit")
    found: dict[str, Any] = STATUS(from_json(payload))
    return found


def decode_confirm(payload: bytes) -> dict[str, Any]:
    """The `confirm` of a confirm message."""
    found: dict[str, Any] = CONFIRM(from_json(payload))
    return found
