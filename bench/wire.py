"""The ways to write a batch that are compared, whole messages, lossless: ours, and what people use without a format.

Everything of the benches that knows how ours is made from a batch, and read again, is in `Wire`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from typing import Any

import msgpack
import zstandard

from agent.definitions import Book
from agent.outbox.contract import GroupDefinition
from protocols.field.contract import Group, Scan, Tag
from protocols.uplink import definition, envelope
from protocols.uplink.batch import Batch, Block, Column
from protocols.uplink.definition import Definition
from protocols.values import Value, ValueType

ZSTD_LEVEL = 3
GROUP = "main"


class Wire:
    """Both ends of one gateway's telemetry of one poll group, as the agent encodes it and the receiver decodes it.

    `beside`: the definitions that were said so far so that the messages can be decoded, in order.
    """

    def __init__(self, device: str, tags: Sequence[tuple[str, ValueType, str]]) -> None:
        """`tags`: name, type and unit of all that the group has."""
        self.group = Group(device, GROUP, 1.0, tuple(Tag(*tag) for tag in tags))
        self.beside: list[GroupDefinition] = []
        self._places = {tag.name: at for at, tag in enumerate(self.group.tags)}
        self._book: Book | None = None
        self._known: dict[bytes, Definition] = {}

    def encode(self, batch: Batch) -> bytes:
        """The message that the agent publishes."""
        return self.encode_scans(batch, [self.scans(block) for block in batch.blocks])

    def scans(self, block: Block) -> list[Scan]:
        """The block as a driver would have given it."""
        cells: list[dict[int, tuple[Value, int]]] = [{} for _ in block.times_us]
        for column in block.columns:
            at = self._places[column.name]
            for position, row in enumerate(range(len(column.values)) if column.rows is None else column.rows):
                cells[row][at] = column.values[position], 0 if column.quality is None else column.quality[position]
        return [
            Scan(
                self.group,
                time_us,
                tuple(row[at][0] for at in sorted(row)),
                None if len(row) == len(self.group.tags) else sorted(row),
                [row[at][1] for at in sorted(row)] if any(code for _, code in row.values()) else None,
            )
            for time_us, row in zip(block.times_us, cells, strict=True)
        ]

    def encode_scans(self, batch: Batch, scans: Sequence[Sequence[Scan]]) -> bytes:
        """The message of the batch, whose blocks are `scans`, which is what the agent starts from."""
        book = self._book = self._book or Book(batch.gateway)
        encoded = book.encode(batch.epoch, batch.seq, scans)
        for said in encoded.definitions:
            if said.ref not in self._known:
                self._known[said.ref] = definition.decode(said.message)
                self.beside.append(said)
        return encoded.payload

    def decode(self, message: bytes) -> Batch:
        """What the receiver makes of it."""
        return envelope.decode(message, self._known.get)


def json_rows(batch: Batch) -> bytes:
    """One object per scan, as a gateway without a format of its own sends them; times in ms."""
    scans = [_scan(block, row) for block in batch.blocks for row in range(len(block.times_us))]
    for block, start in zip(batch.blocks, _starts(batch.blocks), strict=True):
        for column in block.columns:
            for at, row in enumerate(range(len(block.times_us)) if column.rows is None else column.rows):
                scan = scans[start + row]
                scan["values"][column.name] = column.values[at]
                if column.quality is not None and column.quality[at]:
                    scan.setdefault("quality", {})[column.name] = column.quality[at]
    head = {"gateway": batch.gateway, "epoch": batch.epoch, "seq": batch.seq}
    return json.dumps({**head, "scans": scans}, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _scan(block: Block, row: int) -> dict[str, Any]:
    time_us = block.times_us[row]
    return {"timestamp": time_us / 1000 if time_us % 1000 else time_us // 1000, "values": {}}


def _starts(blocks: Sequence[Block]) -> list[int]:
    return [sum(len(block.times_us) for block in blocks[:at]) for at in range(len(blocks))]


class MsgpackColumns:
    """The same columns as MessagePack in a zstd frame with a checksum; float32 in 32 bits."""

    def __init__(self) -> None:
        self._double, self._single = msgpack.Packer(), msgpack.Packer(use_single_float=True)
        self._zstd = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True)
        self._unzstd = zstandard.ZstdDecompressor()

    def encode(self, batch: Batch) -> bytes:
        parts = [
            self._double.pack([batch.gateway, batch.epoch, batch.seq, len(batch.blocks)]),
            *(part for block in batch.blocks for part in self._block(block)),
        ]
        return self._zstd.compress(b"".join(parts))

    def _block(self, block: Block) -> list[bytes]:
        return [
            self._double.pack([block.device, list(block.times_us), len(block.columns)]),
            *map(self._column, block.columns),
        ]

    def _column(self, column: Column) -> bytes:
        packer = self._single if column.type is ValueType.FLOAT32 else self._double
        packed: bytes = packer.pack(
            [column.name, column.type.value, column.unit, column.values, column.rows, column.quality]
        )
        return packed

    def decode(self, message: bytes) -> Batch:
        unpacker = msgpack.Unpacker(max_buffer_size=1 << 28)
        unpacker.feed(self._unzstd.decompress(message))
        gateway, epoch, seq, block_count = unpacker.unpack()
        blocks = []
        for _ in range(block_count):
            device, times_us, column_count = unpacker.unpack()
            columns = [self._read_column(unpacker.unpack()) for _ in range(column_count)]
            blocks.append(Block(device, times_us, columns))
        return Batch(gateway, epoch, seq, blocks)

    def _read_column(self, read: list[Any]) -> Column:
        name, kind, unit, values, rows, quality = read
        return Column(name, ValueType(kind), values, unit, rows, quality)


def raw_columns(batch: Batch) -> bytes:
    """Values only: numbers in their own width side by side, texts with a zero byte behind each."""
    return b"".join(raw_column(column) for block in batch.blocks for column in block.columns)


FORMATS = {
    ValueType.BOOL: "?",
    ValueType.INT: "q",
    ValueType.UINT: "Q",
    ValueType.FLOAT32: "f",
    ValueType.FLOAT64: "d",
}
"""struct's letter of each type of number."""


def raw_column(column: Column) -> bytes:
    """One column of `raw_columns`."""
    if column.type is ValueType.STRING:
        return b"".join(str(value).encode() + b"\0" for value in column.values)
    return struct.pack(f"<{len(column.values)}{FORMATS[column.type]}", *column.values)


def zstd(write: Callable[[Batch], bytes]) -> Callable[[Batch], bytes]:
    """The same in a zstd frame."""
    compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL)
    return lambda batch: compressor.compress(write(batch))


def same(before: Batch, after: Batch) -> bool:
    """Whether nothing was changed: every value bit for bit, of the same type."""
    return _exact(before) == _exact(after)


def _exact(batch: Batch) -> list[object]:
    head: list[object] = [batch.gateway, batch.epoch, batch.seq]
    blocks = [[b.device, list(b.times_us), [_exact_column(column) for column in b.columns]] for b in batch.blocks]
    return head + blocks


def _exact_column(column: Column) -> tuple[object, ...]:
    """Numbers as their bytes, because -0.0 equals 0.0 and no NaN equals itself."""
    absent = [value is None for value in column.values]
    present = [value for value in column.values if value is not None]
    exact: object = present
    if column.type in FORMATS:
        exact = struct.pack(f"<{len(present)}{FORMATS[column.type]}", *present)
    rows = None if column.rows is None else list(column.rows)
    quality = list(column.quality) if column.quality is not None and any(column.quality) else None
    return column.name, column.type.value, column.unit, rows, absent, exact, quality, dict(column.reasons)
