"""Rows for the wire: bytes per sample of whole messages, what encoding and decoding cost, and how both grow.

Every message of ours is decoded again and compared, bit for bit; a difference ends the bench.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bench import codec_speed, limits_codec, mixes, recordings, wire
from bench.codec_speed import growth_case
from bench.peers import gorilla
from bench.processes import ROOT, RunFailed
from bench.recordings import Recording
from bench.table import Row
from protocols.uplink.batch import Batch, Column
from protocols.values import ValueType

BYTES = "Bytes per sample: whole telemetry messages with everything needed to decode them"
SPEED = "Encoding and decoding, 1,000 tags × 60 scans; the limit is zstd alone on the same bytes"
ONE_SCAN = "Decoding 1,000 tags × 1 scan, plain Python"
GROWTH = "Growth of the message: CPU and bytes per sample must not grow"

AIMS = {60: 0.20, 10: 0.70, 1: 3.0}
AIM_PER_CPU_S, AIM_WITHOUT_NUMPY = 100e6, 2e6
AIM_ONE_SCAN_US = 2.0
GROWTH_TOLERANCE = 1.25
READINGS_MAX, READINGS_QUICK = 200_000, 15_000
MIX_TAGS, MIX_ROWS, MIX_ROWS_QUICK = 50, 1800, 300
MIX_SCANS_QUICK = (60, 1)
SPEED_S, SPEED_QUICK_S = 0.5, 0.08
SPEED_TIMEOUT_S = 600.0
EVERY_MIX = (*mixes.KINDS, "everything")
SPEED_QUICK = ("noisy float32", "float64, 1 decimal", "counters", "everything")
VALUES_ONLY = "values only: "


Forms = dict[str, dict[str, float]]
"""Name of a form → its figures."""


def rows(options: argparse.Namespace) -> list[Row]:
    """`options`: `quick`, and `recording`, a list of CSV files."""
    return [*_bytes_rows(options), *_speed_rows(options.quick)]


# --- bytes ------------------------------------------------------------------------------------------------------------


def _bytes_rows(options: argparse.Namespace) -> Iterator[Row]:
    readings_max = READINGS_QUICK if options.quick else READINGS_MAX
    for path in options.recording or [recordings.EXCERPT]:
        recording = recordings.load(path)
        for scans, aim in AIMS.items():
            yield bytes_row(recording, scans, readings_max, aim)
    for recording in mixes.mixes(MIX_TAGS, MIX_ROWS_QUICK if options.quick else MIX_ROWS):
        for scans in MIX_SCANS_QUICK if options.quick else AIMS:
            yield bytes_row(recording, scans, readings_max, None)


def bytes_row(recording: Recording, scans: int, readings_max: int, aim: float | None) -> Row:
    """One recording in messages of `scans` rows."""
    batches = list(recording.batches(scans, readings_max))
    samples = sum(batch.readings() for batch in batches)
    ours = wire.Wire(recording.device, recording.named())
    messages = [ours.encode(batch) for batch in batches]
    for batch, message in zip(batches, messages, strict=True):
        if not wire.same(batch, ours.decode(message)):
            raise RunFailed(f"{recording.name}, batch {batch.seq}: the message did not come back as it was")
    beside = sum(len(said.message) for said in ours.beside)
    whole: dict[str, Callable[[Batch], bytes]] = {
        "JSON": wire.json_rows,
        "JSON + zstd": wire.zstd(wire.json_rows),
        "msgpack + zstd": wire.MsgpackColumns().encode,
    }
    peers: dict[str, float | None] = {
        name: sum(len(write(batch)) for batch in batches) / samples for name, write in whole.items()
    }
    detail: dict[str, object] = {
        "messages": len(batches),
        "samples": samples,
        "definitions": len(ours.beside),
        "definition_bytes": beside,
    }
    peers |= _values_only(batches, detail)
    note = str(detail.get("pcodec_absent", ""))
    return Row(
        section=BYTES,
        what=f"{recording.name}, {scans} scan{'s' if scans > 1 else ''} per batch",
        unit="bytes/sample",
        ours=(sum(map(len, messages)) + beside) / samples,
        peers=peers,
        aim=None if aim is None else ("<=", aim),
        better="lower",
        note=note,
        detail=detail,
    )


def _values_only(batches: Sequence[Batch], detail: dict[str, object]) -> dict[str, float | None]:
    """Compressors of values. Those that know numbers only are told of nothing else, and measured on that."""
    raw = wire.zstd(wire.raw_columns)
    samples = sum(batch.readings() for batch in batches)
    numbers = [_numbers(batch) for batch in batches]
    count = sum(len(column.values) for columns in numbers for column in columns)
    found: dict[str, float | None] = {VALUES_ONLY + "zstd": sum(len(raw(batch)) for batch in batches) / samples}
    if not count:
        return found
    values = sum(_gorilla_bytes(columns) for columns in numbers) / count
    times = sum(_gorilla_time_bytes(batch) for batch in batches) / count
    found |= {"Gorilla, times and values": values + times, VALUES_ONLY + "Gorilla": values}
    detail["numbers"] = count
    try:
        sizes = limits_codec.pcodec([[_raw_numbers(column) for column in columns] for columns in numbers])
    except limits_codec.Absent as error:
        found[VALUES_ONLY + "pcodec"] = None
        detail["pcodec_absent"] = str(error)
    else:
        found[VALUES_ONLY + "pcodec"] = min(sizes.values()) / count  # the arrangement that suits it best
        detail["pcodec"] = {name: size / count for name, size in sizes.items()}
    return found


def _numbers(batch: Batch) -> list[Column]:
    return [column for block in batch.blocks for column in block.columns if column.type is not ValueType.STRING]


def _raw_numbers(column: Column) -> tuple[str, bytes, int]:
    return wire.FORMATS[column.type], wire.raw_column(column), len(column.values)


def _gorilla_bytes(columns: Sequence[Column]) -> int:
    """All columns of a message in one stream of bits; everything is a float64 to it."""
    return -(-sum(len(gorilla.encode_values([float(value or 0) for value in c.values])) for c in columns) // 8)


def _gorilla_time_bytes(batch: Batch) -> int:
    """As the paper has it, every series has its own times. In the coarsest unit that is exact."""
    bits = 0
    for block in batch.blocks:
        unit_us = next(unit for unit in (1_000_000, 1000, 1) if not any(time_us % unit for time_us in block.times_us))
        times = [time_us // unit_us for time_us in block.times_us]
        regular = len(gorilla.encode_times(times))
        for column in block.columns:
            if column.type is not ValueType.STRING:
                own = column.rows and len(gorilla.encode_times([times[row] for row in column.rows]))
                bits += own or regular
    return -(-bits // 8)


# --- speed ------------------------------------------------------------------------------------------------------------


def _speed_rows(quick: bool) -> Iterator[Row]:
    seconds, names = (SPEED_QUICK_S, SPEED_QUICK) if quick else (SPEED_S, EVERY_MIX)
    bare = _speeds(seconds, names, "--without-numpy", *(["--without-growth"] if quick else []))
    fast = _speeds(seconds, names)
    for direction in ("encode", "decode"):
        for name in names:
            forms = bare[codec_speed.speed_case(name, codec_speed.SPEED_SCANS)]
            yield _speed_row(f"{name}, lists, plain Python", direction, forms, codec_speed.LISTS, AIM_WITHOUT_NUMPY)
    for direction in ("encode", "decode"):
        for name in names:
            forms = fast[codec_speed.speed_case(name, codec_speed.SPEED_SCANS)]
            if not fast["numpy"]:
                forms = {form: forms[form] for form in (codec_speed.LIMIT, codec_speed.PEER)}
            yield _speed_row(f"{name}, lists, numpy", direction, forms, codec_speed.LISTS, None)
            if codec_speed.ARRAYS in forms or not fast["numpy"]:  # only blocks of whole rows are arrays
                yield _speed_row(f"{name}, arrays, numpy", direction, forms, codec_speed.ARRAYS, AIM_PER_CPU_S)
    for name in names:
        yield _one_scan_row(name, bare[codec_speed.speed_case(name, 1)])
    if not quick:
        yield from _growth_rows(bare, "scans", codec_speed.GROWTH_SCANS)
        yield from _growth_rows(bare, "tags", codec_speed.GROWTH_TAGS)


def _speeds(seconds: float, names: Sequence[str], *words: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.codec_speed", "--seconds", str(seconds), *words, *names]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=os.environ, timeout=SPEED_TIMEOUT_S, check=False
    )
    if done.returncode:
        raise RunFailed(f"bench.codec_speed: {done.stderr.strip()[-600:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _speed_row(what: str, direction: str, forms: Forms, ours: str, aim: float | None) -> Row:
    per_cpu_s = {name: 1e9 / form[direction] for name, form in forms.items()}
    found = per_cpu_s.get(ours)
    return Row(
        section=SPEED,
        what=f"{direction}: {what}",
        unit="samples/CPU-s",
        ours=found,
        peers={codec_speed.PEER: per_cpu_s[codec_speed.PEER]},
        limit=(codec_speed.LIMIT, per_cpu_s[codec_speed.LIMIT]),
        aim=None if aim is None else (">=", aim),
        note="numpy is not installed" if found is None else "",
        detail={"ns_per_sample": {name: form[direction] for name, form in forms.items()}},
    )


def _one_scan_row(name: str, forms: Forms) -> Row:
    """To rows where that is what comes out, otherwise to columns."""
    ours = codec_speed.ROWS if codec_speed.ROWS in forms else codec_speed.LISTS
    return Row(
        section=ONE_SCAN,
        what=f"{name}, to {'rows' if ours == codec_speed.ROWS else 'columns'}",
        unit="CPU µs/reading",
        ours=forms[ours]["decode"] / 1000,
        peers={codec_speed.PEER: forms[codec_speed.PEER]["decode"] / 1000},
        aim=("<=", AIM_ONE_SCAN_US),
        better="lower",
        detail={"ns_per_sample": {form: found["decode"] for form, found in forms.items()}},
    )


def _growth_rows(found: dict[str, Any], what: str, sizes: Sequence[tuple[int, int]]) -> Iterator[Row]:
    first = found[growth_case(*sizes[0])][codec_speed.LISTS]
    for measure, unit in (("encode", "CPU ns/sample"), ("decode", "CPU ns/sample"), ("bytes", "bytes/sample")):
        for tags, scans in sizes:
            forms = found[growth_case(tags, scans)]
            times = tags * scans // (sizes[0][0] * sizes[0][1])
            yield Row(
                section=GROWTH,
                what=f"{measure}, {what} ×{times}: {tags:,} tags × {scans} scans",
                unit=unit,
                ours=forms[codec_speed.LISTS][measure],
                peers={codec_speed.PEER: forms[codec_speed.PEER][measure]},
                aim=("<=", first[measure] * GROWTH_TOLERANCE) if times > 1 else None,
                better="lower",
            )
