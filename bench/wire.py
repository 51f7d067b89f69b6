"""Bytes per sample of whole telemetry messages, and what encoding and decoding cost, beside plain JSON and JSON + zstd.

All three are lossless and decodable alone; every message of ours is decoded again and compared.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

import zstandard

from bench.recordings import Recording
from protocols.uplink.batch import Batch
from protocols.uplink.envelope import decode, encode

ROWS_MAX = 3000


@dataclass(frozen=True, slots=True)
class WireRow:
    """Bytes per sample by form, and samples per CPU-second of ours."""

    recording: str
    scans: int
    holdfast: float
    json: float
    json_zstd: float
    encode_per_cpu_s: float
    decode_per_cpu_s: float


def measure(recording: Recording, scans: int) -> WireRow:
    batches = list(recording.batches(scans, ROWS_MAX))
    samples = sum(batch.readings() for batch in batches)
    begun_s = time.process_time()
    messages = [encode(batch) for batch in batches]
    encoded_s = time.process_time()
    decoded = [decode(message) for message in messages]
    decoded_s = time.process_time()
    for before, after in zip(batches, decoded, strict=True):
        assert _rows(before) == _rows(after), "a message did not come back as it was"
    plain = [_json(batch) for batch in batches]
    compressor = zstandard.ZstdCompressor(level=3)
    return WireRow(
        recording.name,
        scans,
        sum(map(len, messages)) / samples,
        sum(map(len, plain)) / samples,
        sum(len(compressor.compress(text)) for text in plain) / samples,
        samples / (encoded_s - begun_s),
        samples / (decoded_s - encoded_s),
    )


def _rows(batch: Batch) -> list[object]:
    return [(list(block.times_us), [(c.name, list(c.values)) for c in block.columns]) for block in batch.blocks]


def _json(batch: Batch) -> bytes:
    """One JSON object per scan, as a gateway without a format of its own sends them."""
    rows = []
    for block in batch.blocks:
        for at, time_us in enumerate(block.times_us):
            values = {column.name: column.values[at] for column in block.columns}
            rows.append({"timestamp": time_us // 1000, "seq": batch.seq, "values": values})
    return json.dumps(rows, separators=(",", ":")).encode()
