"""Telemetry: bytes ⇄ batch. Pure. The formats are specified in docs/wire.md, with test vectors as files.

Binary form, decodable alone, MessagePack in a zstd frame: [1, gateway, epoch, seq, [block, …]].
Referring form, which needs definitions (protocols/uplink/definition.py): [2, seq, [block, …]].
JSON form (third parties, debugging), plain or in any of the compressions, as JSON or MessagePack:
{"schemaVersion": 1, "timestamp": ms, "seq": n, "values": {tag: value}}, optionally gateway, epoch, quality.

An array is one of the first two, by its first number; a map is the JSON form. Whatever else arrives raises
EnvelopeError with one sentence.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from protocols.uplink.batch import SEQ_MAX, Batch, Block, Column
from protocols.uplink.blocks import READINGS_MAX, pack_block, unpack_block
from protocols.uplink.columns import TEXT_MAX
from protocols.uplink.definition import REF_BYTES, Definition, Referring, unpack_referring
from protocols.uplink.frames import FrameError, pack, unpack
from protocols.uplink.status import TIMESTAMP_MS_MAX
from protocols.uplink.streams import ColumnError
from protocols.values import Quality, Value, ValueType

SCHEMA_VERSION = 1
REFERRING = 2
BLOCKS_MAX = 1000
_EXACT = 1 << 53
_SURROGATE = re.compile("[\ud800-\udfff]")
_WORDS = {"good": Quality.GOOD, "uncertain": Quality.UNCERTAIN, "bad": Quality.BAD}


Lookup = Callable[[bytes], Definition | None]
"""Reference → definition, None where it is not known."""


class EnvelopeError(ValueError):
    """Not a telemetry message. The text says why in one sentence."""


class DefinitionMissing(Exception):
    """The message is in order as far as one can tell, but refers to definitions that are not known."""

    def __init__(self, refs: Sequence[bytes]) -> None:
        super().__init__(f"definitions {', '.join(reference.hex() for reference in refs)} are not known yet")
        self.refs = tuple(refs)


def digest(payload: bytes) -> bytes:
    """16 bytes that tell two payloads apart (BLAKE2b)."""
    return hashlib.blake2b(payload, digest_size=16).digest()


def encode(batch: Batch) -> bytes:
    """The binary form. `epoch` must be hexadecimal digits, an even number of them, or empty."""
    return pack(
        [
            SCHEMA_VERSION,
            batch.gateway,
            bytes.fromhex(batch.epoch),
            batch.seq,
            [pack_block(block) for block in batch.blocks],
        ]
    )


def encode_referring(seq: int, blocks: Sequence[Referring]) -> bytes:
    """The referring form, of blocks from protocols.uplink.definition.pack_referring."""
    return pack([REFERRING, seq, [block.packed for block in blocks]])


def decode(payload: bytes, lookup: Lookup = lambda _: None) -> Batch:
    """The batch in a telemetry message of any form. Raises EnvelopeError; DefinitionMissing where `lookup` has none."""
    try:
        value = unpack(payload)
        if isinstance(value, list):
            if value and type(value[0]) is int and value[0] == REFERRING:
                return _from_referring(value, lookup)
            return _from_array(value)
        if isinstance(value, dict):
            return _from_map(value)
    except (FrameError, ColumnError) as error:
        raise EnvelopeError(str(error)) from None
    raise EnvelopeError("a message is neither a map nor an array")


def _from_array(value: list[Any]) -> Batch:
    if not value or value[0] != SCHEMA_VERSION or type(value[0]) is not int:
        raise EnvelopeError(f"schemaVersion {value[0] if value else None!r:.40} is not {SCHEMA_VERSION}")
    if len(value) != 5:
        raise EnvelopeError(f"an array of {len(value)} is no batch, which has 5 parts")
    _, gateway, epoch, seq, blocks = value
    if not isinstance(epoch, bytes) or len(epoch) > 32:
        raise EnvelopeError("the epoch is not a byte string of at most 32 bytes")
    if not isinstance(blocks, list) or len(blocks) > BLOCKS_MAX:
        raise EnvelopeError(f"the blocks are not an array of at most {BLOCKS_MAX}")
    return Batch(_gateway(gateway), epoch.hex(), _seq(seq), _unpacked(blocks, unpack_block))


def _unpacked(blocks: Sequence[Any], unpack_one: Callable[[Any, int], Block]) -> list[Block]:
    left = READINGS_MAX
    unpacked = []
    for packed in blocks:
        block = unpack_one(packed, left)
        left -= block.readings()
        if not all(0 <= time_us <= TIMESTAMP_MS_MAX * 1000 for time_us in block.times_us):
            raise EnvelopeError("a time stamp lies outside the years 1970 to 9999")
        unpacked.append(block)
    return unpacked


def _from_referring(value: list[Any], lookup: Lookup) -> Batch:
    if len(value) != 3 or not isinstance(value[2], list) or not 0 < len(value[2]) <= BLOCKS_MAX:
        raise EnvelopeError(f"a message of the referring form is not [2, seq, 1 to {BLOCKS_MAX} blocks]")
    _, seq, blocks = value
    refs = [_reference(block) for block in blocks]
    known = {reference: lookup(reference) for reference in refs}
    definitions = [found for reference in refs if (found := known[reference]) is not None]
    if len(definitions) < len(refs):
        raise DefinitionMissing([reference for reference, found in known.items() if found is None])
    senders = {(definition.gateway, definition.epoch) for definition in definitions}
    if len(senders) != 1:
        raise EnvelopeError("the blocks of one message refer to definitions of several gateways or epochs")
    of_block = iter(definitions)
    unpacked = _unpacked(blocks, lambda packed, left: unpack_referring(packed, next(of_block), left))
    [(gateway, epoch)] = senders
    return Batch(_gateway(gateway), epoch, _seq(seq), unpacked)


def _reference(block: Any) -> bytes:
    if not isinstance(block, list) or not block or not isinstance(block[0], bytes) or len(block[0]) != REF_BYTES:
        raise EnvelopeError(f"a block does not begin with a reference of {REF_BYTES} bytes")
    return block[0]


def _from_map(value: Mapping[Any, Any]) -> Batch:
    version = value.get("schemaVersion")
    if version != SCHEMA_VERSION or type(version) is not int:
        raise EnvelopeError(f"schemaVersion {version!r:.40} is not {SCHEMA_VERSION}")
    timestamp = value.get("timestamp")
    if type(timestamp) is not int or not 0 <= timestamp <= TIMESTAMP_MS_MAX:
        raise EnvelopeError(f"timestamp {timestamp!r:.40} is not milliseconds since 1970")
    values = value.get("values")
    if not isinstance(values, dict) or not values or len(values) > 20_000:
        raise EnvelopeError("values is not a map of 1 to 20,000 tags")
    epoch = value.get("epoch", "")
    if not isinstance(epoch, str) or len(epoch) > 64 or not epoch.isprintable():
        raise EnvelopeError("epoch is not a text of at most 64 characters")
    quality = value.get("quality", {})
    if not isinstance(quality, dict) or not quality.keys() <= values.keys():
        raise EnvelopeError("quality is not a map over the tags of values")
    columns = [_json_column(name, found, quality.get(name)) for name, found in values.items()]
    block = Block("", [timestamp * 1000], columns)
    return Batch(_gateway(value.get("gateway", "")), epoch, _seq(value.get("seq")), [block])


def _json_column(name: Any, value: Any, quality: Any) -> Column:
    if not isinstance(name, str) or not 0 < len(name) <= 128 or not name.isprintable():
        raise EnvelopeError(f"{name!r:.60} is not a tag name")
    code = _WORDS.get(quality, quality) if isinstance(quality, str) else quality
    if code is None:
        code = Quality.GOOD if value is not None else Quality.BAD
    if type(code) is not int or not 0 <= code <= 0xFFFFFFFF:
        raise EnvelopeError(f"tag {name!r:.60}: quality {quality!r:.40} is neither a word nor a status code")
    kind, found = _json_value(name, value)
    return Column(name, kind, [found], quality=[code] if code else None)


def _json_value(name: str, value: Any) -> tuple[ValueType, Value]:
    """JSON has one kind of number, so 20 and 20.5 belong to one series: numbers are floats where that is exact."""
    match value:
        case None:
            return ValueType.FLOAT64, None
        case bool():
            return ValueType.BOOL, value
        case int() if abs(value) <= _EXACT:
            return ValueType.FLOAT64, float(value)
        case int() if -(1 << 63) <= value < 1 << 63:
            return ValueType.INT, value
        case int() if 0 <= value < 1 << 64:
            return ValueType.UINT, value
        case float() if math.isfinite(value):
            return ValueType.FLOAT64, value
        case str() if len(value) <= TEXT_MAX and not _SURROGATE.search(value):  # half a pair is no Unicode text
            return ValueType.STRING, value
    raise EnvelopeError(f"tag {name!r:.60}: {value!r:.40} is not a value that a tag can have")


def _gateway(gateway: Any) -> str:
    if not isinstance(gateway, str) or len(gateway) > 64 or not gateway.isprintable():
        raise EnvelopeError("gateway is not a text of at most 64 characters")
    return gateway


def _seq(seq: Any) -> int:
    if type(seq) is not int or not 1 <= seq <= SEQ_MAX:
        raise EnvelopeError(f"seq {seq!r:.40} is not a number from 1 to {SEQ_MAX}")
    return seq


def encode_json(timestamp_ms: int, seq: int, values: Mapping[str, Value], **optional: Any) -> bytes:
    """The JSON form of one scan; `optional`: gateway, epoch, quality."""
    return json.dumps(
        {"schemaVersion": SCHEMA_VERSION, "timestamp": timestamp_ms, "seq": seq, "values": dict(values), **optional},
        ensure_ascii=False,
        allow_nan=False,
        separators=(",", ":"),
    ).encode()
