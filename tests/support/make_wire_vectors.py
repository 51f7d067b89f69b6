"""Writes the test vectors of docs/wire.md: `python -m tests.support.make_wire_vectors`.

The expected content comes from what was put in, not from our decoder. A file whose unpacked bytes are still right is
left alone, because compressed bytes differ between versions of the compressors.
"""

from __future__ import annotations

import gzip
import json
import math
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import msgpack
import zstandard

from protocols.uplink import definition as definitions
from protocols.uplink import frames, status
from protocols.uplink.batch import SEQ_MAX, Batch, Block, Column
from protocols.uplink.columns import Base
from protocols.uplink.confirm import Confirm, MachineConfirm
from protocols.uplink.definition import Definition, pack_referring
from protocols.uplink.envelope import encode, encode_referring
from protocols.uplink.mark import ClockMark, mark, read
from protocols.uplink.status import Status
from protocols.values import Quality, Value, ValueType

DIRECTORY = Path(__file__).parents[2] / "docs" / "wire-vectors"
EXACT = 1 << 53
UNPACKED_BYTES_MAX = 64 << 20  # more than any vector's
TIME_US = 1_496_275_200_000_000  # 2017-06-01T00:00:00Z
MAX_US = 253_402_300_799_999_000


@dataclass(frozen=True)
class Vector:
    """`payload`: the message. `expected`: what stands in the JSON file beside `about` and `kind`."""

    name: str
    kind: str  # telemetry | definition | status | confirm
    about: str
    payload: bytes
    expected: dict[str, Any]

    def document(self) -> dict[str, Any]:
        """The content of the JSON file."""
        return {"about": self.about, "kind": self.kind, **self.expected}


def dumps(document: Any) -> str:
    """As the files are written, so that equal texts mean equal content, 1 and 1.0 and True told apart."""
    return json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1) + "\n"


def inside(payload: bytes) -> bytes | None:
    """The bytes under the compression, the same with every version of a compressor; None where it is broken."""
    payload = read(payload).message
    try:
        match payload[:1]:
            case b"\x28":
                return zstandard.ZstdDecompressor().decompress(payload, UNPACKED_BYTES_MAX, allow_extra_data=False)
            case b"\x1f":
                return gzip.decompress(payload)
            case b"\x78":
                return zlib.decompress(payload)
    except (zstandard.ZstdError, zlib.error):
        return None
    return payload


# --- a batch in plain JSON, as docs/wire.md, section 11, says --------------------------------------------------------


def plain(batch: Batch) -> dict[str, Any]:
    """The batch as it stands in the files."""
    return {
        "gateway": batch.gateway,
        "epoch": batch.epoch,
        "seq": plain_integer(batch.seq),
        "blocks": [
            {
                "device": block.device,
                "times_us": [plain_integer(time_us) for time_us in block.times_us],
                "columns": [plain_column(column) for column in block.columns],
            }
            for block in batch.blocks
        ],
    }


def plain_column(column: Column) -> dict[str, Any]:
    """One column; a quality that is all good is null, however it was written."""
    return {
        "name": column.name,
        "type": str(column.type),
        "unit": column.unit,
        "rows": None if column.rows is None else list(column.rows),
        "values": [plain_value(column.type, value) for value in column.values],
        "quality": list(column.quality) if column.quality is not None and any(column.quality) else None,
        "reasons": {str(at): column.reasons[at] for at in sorted(column.reasons)},
    }


def plain_value(value_type: ValueType, value: Value) -> Any:
    """A value so that every JSON parser gets it exactly."""
    if isinstance(value, bool | str) or value is None:
        return value
    if isinstance(value, int):
        return plain_integer(value)
    if math.isfinite(value) and (value or math.copysign(1, value) > 0):
        return value
    return "0x" + struct.pack(">f" if value_type is ValueType.FLOAT32 else ">d", value).hex()


def plain_integer(n: int) -> int | str:
    """Text where a binary64, which is all that some JSON parsers have, could not hold it."""
    return n if abs(n) <= EXACT else str(n)


# --- the binary form -------------------------------------------------------------------------------------------------


def batch(*blocks: Block, seq: int = 7) -> Batch:
    """A batch of gw-1 in an epoch of 8 bytes."""
    return Batch("gw-1", "0011223344556677", seq, blocks)


def seconds(rows: int) -> list[int]:
    """Times one second apart."""
    return [TIME_US + 1_000_000 * row for row in range(rows)]


def f32(value: float) -> float:
    """The nearest binary32."""
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def bits32(*patterns: int) -> list[float]:
    """The float32 values with these bit patterns (quiet NaNs only: a signalling one changes on its way)."""
    return [float(struct.unpack("<f", struct.pack("<I", pattern))[0]) for pattern in patterns]


def bits64(*patterns: int) -> list[float]:
    """The float64 values with these bit patterns."""
    return [float(struct.unpack("<d", struct.pack("<Q", pattern))[0]) for pattern in patterns]


def worked_example() -> Batch:
    """The message that docs/wire.md takes apart byte by byte."""
    return batch(
        Block(
            "plc-1",
            seconds(3),
            [
                Column("temp", ValueType.FLOAT32, [f32(20.5), f32(20.5), f32(20.6)], "°C"),
                Column("run", ValueType.BOOL, [True, True, False]),
                Column(
                    "flow", ValueType.INT, [7, None, -3], "l/s", None, [0, Quality.BAD_TIMEOUT, 0], {1: "no answer"}
                ),
                Column("step", ValueType.STRING, ["fill", "mix"], rows=[0, 2]),
            ],
        )
    )


def sixty_scans() -> Batch:
    """Sixty rows of every type, as a slow minute looks."""
    rows = range(60)
    return batch(
        Block(
            "plc-1",
            [TIME_US + 1_000_000 * row + (row * 37) % 11 for row in rows],
            [
                Column("temperature", ValueType.FLOAT64, [round(20 + row * 0.1, 1) for row in rows], "°C"),
                Column("pressure", ValueType.FLOAT32, [f32(round(1.013 + row / 1000, 3)) for row in rows], "bar"),
                Column("vibration", ValueType.FLOAT64, [math.sin(row) for row in rows], "mm/s"),
                Column("count", ValueType.UINT, [70_000 + 300 * row for row in rows]),
                Column("offset", ValueType.INT, [(-1) ** row * row for row in rows]),
                Column("setpoint", ValueType.INT, [42] * 60),
                Column("running", ValueType.BOOL, [row % 7 != 0 for row in rows]),
                Column("mode", ValueType.STRING, ["auto"] * 40 + ["manual"] * 20),
            ],
        )
    )


def sparse_rows() -> Batch:
    """A subscription: each moment has only what changed."""
    return batch(
        Block(
            "opcua-1",
            [TIME_US, TIME_US + 250_000, TIME_US + 250_001, TIME_US + 900_000, TIME_US + 400_000],
            [
                Column("ns2.speed", ValueType.FLOAT64, [1.5, 1.75, 2.0], rows=[0, 2, 3]),
                Column("ns2.state", ValueType.STRING, ["idle"], rows=[4]),
                Column("ns2.door", ValueType.BOOL, [True, False], rows=[1, 4]),
                Column("ns2.never", ValueType.INT, [], rows=[]),
                Column("ns2.always", ValueType.UINT, [5, 5, 6, 6, 6]),
            ],
        )
    )


def bad_qualities() -> Batch:
    """Qualities, reasons (one said once for two) and absent values, of every type."""
    bad, away = Quality.BAD_TIMEOUT, Quality.BAD_NOT_CONNECTED
    why = "plc-1: no answer within 1 s; check the unit id"
    columns = [
        Column("all-bad", ValueType.FLOAT32, [None] * 4, quality=[away] * 4, reasons={0: "plc-1 is away"}),
        Column("some", ValueType.FLOAT64, [1.5, None, None, 2.5], quality=[0, bad, bad, 0], reasons={1: why}),
        Column("uncertain", ValueType.INT, [-5, -6, None, -7], quality=[0x40000000, 0, bad, 0x40900000]),
        Column("other-code", ValueType.UINT, [1, 2, 3, 4], quality=[0, 0, 0, 0xFFFFFFFF], reasons={3: "Größe ✗"}),
        Column("bool", ValueType.BOOL, [True, None, False, True], quality=[0, bad, 0, 0], reasons={1: why}),
        Column("text", ValueType.STRING, [None, "a", "a", None], quality=[bad, 0, 0, away]),
        Column("sparse", ValueType.INT, [None, 9], rows=[1, 3], quality=[bad, 0], reasons={0: why}),
    ]
    return batch(Block("plc-1", seconds(4), columns))


def decimal_floats() -> Batch:
    """Floats that are multiples of a power of ten, up to the last exponent and the largest numerator that ours uses."""
    columns = [
        Column("whole", ValueType.FLOAT64, [0.0, 1.0, -1.0, 9007199254740991.0]),
        Column("tenths", ValueType.FLOAT64, [0.1, 0.2, 0.3, -273.1]),
        Column("nine-digits", ValueType.FLOAT64, [1e-9, 0.123456789, 9007199.25474099, -1e-9]),
        Column("float32-tenths", ValueType.FLOAT32, [f32(v) for v in (0.1, 0.2, 0.3, -273.1)]),
        Column("float32-thousandths", ValueType.FLOAT32, [f32(v) for v in (1.013, 1.014, 1600.125, -0.001)]),
    ]
    return batch(Block("plc-1", seconds(4), columns))


def pattern_floats() -> Batch:
    """Floats that no short decimal gives back exactly."""
    columns = [
        Column("irrational", ValueType.FLOAT64, [math.pi, math.e, math.sqrt(2), 1 / 3]),
        Column("huge-and-tiny", ValueType.FLOAT64, [1.7976931348623157e308, 5e-324, 9007199254740992.0, 1e-10]),
        Column("one-odd-value", ValueType.FLOAT64, [0.1, 0.2, math.pi, 0.4]),
        Column("float32-odd", ValueType.FLOAT32, bits32(0x40490FDB, 0x00000001, 0x7F7FFFFF, 0x3EAAAAAB)),
    ]
    return batch(Block("plc-1", seconds(4), columns))


def special_floats() -> Batch:
    """NaNs with their payloads, both infinities, negative zero."""
    columns = [
        Column(
            "float64",
            ValueType.FLOAT64,
            bits64(
                0x7FF8000000000000,
                0xFFF8000000000000,
                0x7FF80000DEADBEEF,
                0x7FF0000000000000,
                0xFFF0000000000000,
                1 << 63,
            ),
        ),
        Column(
            "float32",
            ValueType.FLOAT32,
            bits32(0x7FC00000, 0xFFC00000, 0x7FC0BEEF, 0x7F800000, 0xFF800000, 0x80000000),
        ),
        Column("zeros", ValueType.FLOAT64, [0.0, -0.0, 0.0, 1.0, -1.0, -0.0]),
    ]
    return batch(Block("plc-1", seconds(6), columns))


def integer_extremes() -> Batch:
    """The ends of both integer types; the differences between neighbours wrap around."""
    low, high, top = -(1 << 63), (1 << 63) - 1, (1 << 64) - 1
    columns = [
        Column("int", ValueType.INT, [low, high, low, 0, -1]),
        Column("uint", ValueType.UINT, [0, top, 0, 1 << 63, EXACT + 1]),
        Column("first-is-extreme", ValueType.INT, [low] * 5),
        Column("one-byte", ValueType.INT, [0, -128, -1, 126, 0]),
        Column("two-bytes", ValueType.UINT, [0, 32_767, 0, 32_767, 1]),
    ]
    times_us = [0, 253_402_300_799_999_000, TIME_US, 1, EXACT + 1]
    return batch(Block("plc-1", times_us, columns), seq=SEQ_MAX)


def two_blocks() -> Batch:
    """Two poll groups of one machine, of two devices, one with a single row and no gateway's unit."""
    return Batch(
        "",
        "",
        1,
        [
            Block("plc-1", seconds(2), [Column("speed", ValueType.FLOAT64, [1.5, 1.5], "m/s")]),
            Block(
                "plc-2", [TIME_US + 5], [Column("speed-2", ValueType.UINT, [3]), Column("on", ValueType.BOOL, [True])]
            ),
            Block("plc-2", [], []),
        ],
    )


def texts() -> Batch:
    """Texts, tags and units in several scripts, empty and long, with a NUL and a line break inside."""
    values = ["", "Größe", "温度が高い", "مرحبا", "🏭🔧", "a\x00b\nc", "x" * 4096]
    columns = [
        Column("text", ValueType.STRING, values, "ℓ/min"),
        Column("温度", ValueType.STRING, ["同じ"] * 7, "°C"),
        Column("no unit", ValueType.STRING, ["a", "a", "b", "b", "a", "a", "a"]),
    ]
    return batch(Block("plc-1", seconds(7), columns))


def binary_vectors() -> list[Vector]:
    """The binary form."""
    made: list[tuple[str, str, Batch]] = [
        ("worked-example", "The message that wire.md takes apart byte by byte.", worked_example()),
        (
            "one-scan",
            "One row: the numbers are all in `firsts`.",
            batch(
                Block(
                    "plc-1",
                    seconds(1),
                    [
                        Column("t", ValueType.FLOAT64, [20.5]),
                        Column("n", ValueType.INT, [-1]),
                        Column("u", ValueType.UINT, [1]),
                        Column("b", ValueType.BOOL, [True]),
                        Column("s", ValueType.STRING, ["on"]),
                        Column("pi", ValueType.FLOAT32, [f32(math.pi)]),
                    ],
                )
            ),
        ),
        ("sixty-scans", "Sixty rows of mixed types; every width of differences but 8.", sixty_scans()),
        ("sparse-rows", "A subscription (OPC UA): columns with rows of their own, one without any.", sparse_rows()),
        ("bad-qualities", "Qualities, reasons and absent values.", bad_qualities()),
        ("decimal-floats", "Floats sent as decimal fractions.", decimal_floats()),
        ("pattern-floats", "Floats sent as XORed bit patterns.", pattern_floats()),
        ("special-floats", "NaNs with payloads, infinities, negative zero.", special_floats()),
        (
            "integer-extremes",
            "The ends of the integer types, of time and of seq; differences wrap.",
            integer_extremes(),
        ),
        ("empty-batch", "No block at all.", batch()),
        ("two-blocks", "Two poll groups, and a block without rows and columns; no gateway, no epoch.", two_blocks()),
        ("texts", "Texts in several scripts; runs of equal ones.", texts()),
    ]
    old = worked_example()
    about, expected = "The worked example, marked as historical.", {"batch": plain(old), "historical": True}
    return [
        *(Vector(name, "telemetry", about, encode(sent), {"batch": plain(sent)}) for name, about, sent in made),
        Vector("historical", "telemetry", about, mark(encode(old)), expected),
        *by_clocks(old),
    ]


CLOCK = ClockMark(bytes(n * 0x11 for n in range(16)), 946_684_800_000_000)
EARLY = ClockMark(bytes(16), -1)


def by_clocks(old: Batch) -> list[Vector]:
    """Messages whose times nobody vouched for."""
    return [
        Vector(
            name,
            "telemetry",
            about,
            payload,
            {"batch": plain(old), **more, "clock": {"span": clock.span.hex(), "zero_us": clock.zero_us}},
        )
        for name, about, clock, payload, more in (
            ("clock", "The worked example by a clock of 2000.", CLOCK, CLOCK.encode() + encode(old), {}),
            (
                "clock-historical",
                "The same of a backlog, by a clock of 1969.",
                EARLY,
                mark(EARLY.encode() + encode(old)),
                {"historical": True},
            ),
        )
    ]


# --- definitions and the referring form ------------------------------------------------------------------------------


def plain_definition(ref: bytes, said: Definition) -> dict[str, Any]:
    """A definition as it stands in the files."""
    return {
        "ref": ref.hex(),
        "gateway": said.gateway,
        "epoch": said.epoch,
        "device": said.device,
        "group": said.group,
        "time_us": plain_integer(said.time_us),
        "tags": [
            {
                "name": name,
                "type": str(kind),
                "unit": unit,
                "exponent": base.exponent,
                "first": plain_integer(base.first),
            }
            for (name, kind, unit), base in zip(said.tags, said.bases, strict=True)
        ],
    }


def define(device: str, *tags: tuple[str, ValueType, str, Base], group: str = "main", **other: Any) -> Definition:
    """A definition of gw-1 in an epoch of 8 bytes."""
    names, bases = tuple(tag[:3] for tag in tags), tuple(tag[3] for tag in tags)
    return replace(Definition("gw-1", "0011223344556677", device, group, TIME_US, names, bases), **other)


def pattern(value: float, code: str = "d") -> Base:
    """Expected to be sent as bit patterns, near this one."""
    return Base(15, int.from_bytes(struct.pack(f">{code}", value), "big"))


DEFINITIONS: dict[str, tuple[str, Definition]] = {
    "worked-example": (
        "The definition that wire.md takes apart byte by byte.",
        define(
            "plc-1",
            ("temp", ValueType.FLOAT32, "°C", Base(1, 205)),
            ("run", ValueType.BOOL, "", Base()),
            ("flow", ValueType.INT, "l/s", Base(0, -3)),
            ("angle", ValueType.FLOAT64, "rad", pattern(math.pi)),
        ),
    ),
    "types": (
        "Every type, with first values at both ends; the widest exponents.",
        define(
            "plc-2",
            ("bool", ValueType.BOOL, "", Base()),
            ("int", ValueType.INT, "", Base(0, -(1 << 63))),
            ("uint", ValueType.UINT, "", Base(0, -1)),
            ("float32", ValueType.FLOAT32, "bar", Base(3, 1013)),
            ("float32-odd", ValueType.FLOAT32, "bar", Base(15, 0xFFFFFFFF)),
            ("float64", ValueType.FLOAT64, "bar", Base(14, -(1 << 52))),
            ("float64-odd", ValueType.FLOAT64, "mm/s", Base(15, (1 << 64) - 1)),
            ("text", ValueType.STRING, "", Base()),
            ("温度", ValueType.FLOAT64, "°C", Base(0, 20)),
            group="all-types",
        ),
    ),
    "other-epoch": (
        "The same gateway in another epoch.",
        define("plc-1", ("temp", ValueType.FLOAT64, "", Base()), epoch="ff" * 32),
    ),
    "nothing": ("No tags; the longest time; neither gateway nor names.", Definition("", "00", "", "", MAX_US, (), ())),
}


def kept(name: str, fresh: bytes) -> bytes:
    """The payload on file if it still says the same: a reference is a hash of the compressed bytes."""
    path = DIRECTORY / f"{name}.bin"
    on_file = path.read_bytes() if path.exists() else b""
    return on_file if inside(on_file) == inside(fresh) else fresh


@cache
def message_of(name: str) -> bytes:
    """The definition's message."""
    return kept(f"definition-{name}", definitions.encode(DEFINITIONS[name][1]))


def ref_of(name: str) -> bytes:
    """The definition's reference."""
    return definitions.ref(message_of(name))


def referring(*blocks: tuple[str, Block], seq: int = 8) -> bytes:
    """A message of these blocks; each refers to the definition of that name."""
    packed = [pack_referring(block, ref_of(name), DEFINITIONS[name][1]) for name, block in blocks]
    return encode_referring(seq, packed)


def temp(*values: float | None, **more: Any) -> Column:
    """Of the worked example's definition."""
    return Column("temp", ValueType.FLOAT32, [None if v is None else f32(v) for v in values], "°C", **more)


def run(*values: bool | None, **more: Any) -> Column:
    """Of the worked example's definition."""
    return Column("run", ValueType.BOOL, values, "", **more)


def flow(*values: int | None, **more: Any) -> Column:
    """Of the worked example's definition."""
    return Column("flow", ValueType.INT, values, "l/s", **more)


def angle(*values: float | None, **more: Any) -> Column:
    """Of the worked example's definition."""
    return Column("angle", ValueType.FLOAT64, values, "rad", **more)


def every_type(rows: int) -> list[Column]:
    """Columns of the definition `types`."""
    return [
        Column("bool", ValueType.BOOL, [row % 2 == 0 for row in range(rows)]),
        Column("int", ValueType.INT, [(1 << 63) - 1 - row for row in range(rows)]),
        Column("uint", ValueType.UINT, [(1 << 64) - 1 if row % 2 else 0 for row in range(rows)]),
        Column("float32", ValueType.FLOAT32, [f32(round(1.013 + row / 1000, 3)) for row in range(rows)], "bar"),
        Column("float32-odd", ValueType.FLOAT32, [bits32(0x7FC00000 + row)[0] for row in range(rows)], "bar"),
        Column("float64", ValueType.FLOAT64, [0.1 + row for row in range(rows)], "bar"),
        Column("float64-odd", ValueType.FLOAT64, [math.sin(row) for row in range(rows)], "mm/s"),
        Column("text", ValueType.STRING, ["auto"] * rows),
        Column("温度", ValueType.FLOAT64, [20.5 + row for row in range(rows)], "°C"),
    ]


def referring_blocks() -> list[tuple[str, str, list[tuple[str, Block]]]]:
    """Name, what it shows, and the blocks with their definitions' names."""
    bad, later = Quality.BAD_TIMEOUT, TIME_US + 3_600_123_000
    worked = Block("plc-1", [TIME_US + 60_000_000 + 250_000], [temp(20.6), run(True), flow(-3)])
    whole = [temp(20.5, 20.5), run(True, False), flow(-3, 500), angle(3.25, -0.0)]
    gaps = [
        temp(None, 20.5, quality=[bad, 0], reasons={0: "no answer"}),
        run(True, rows=[1]),
        flow(None, None, quality=[bad, bad]),
        angle(None, math.pi, quality=[bad, 0]),
    ]
    two = [("worked-example", worked), ("types", Block("plc-2", [later], every_type(1)))]
    simple: list[tuple[str, str, Block]] = [
        ("worked-example", "The message that wire.md takes apart byte by byte.", worked),
        ("no-column", "A row, and none of the columns.", Block("plc-1", [TIME_US], [])),
        ("no-row", "Every column, and no row.", Block("plc-1", [], [temp(), run(), flow(), angle()])),
        ("one-column", "The last column alone, far from what is expected.", Block("plc-1", [later], [angle(-1e-300)])),
        ("whole-seconds", "Times in seconds, modes on their way.", Block("plc-1", seconds(2), whole)),
        ("microseconds", "Times in µs, before the definition's.", Block("plc-1", [1, TIME_US - 1], whole)),
        ("other-exponents", "Not as expected: nothing is added.", Block("plc-1", [later], [temp(20.25), angle(0.5)])),
        ("bad-qualities", "Exceptions, their keys counted among the columns present.", Block("plc-1", [1, 2], gaps)),
        ("equal-rows", "Two rows that are the same.", Block("plc-1", [later] * 2, [temp(20.5, 20.5)])),
    ]
    made = [(name, about, [("worked-example", block)]) for name, about, block in simple]
    return [
        *made,
        (
            "every-type",
            "Every type; differences and patterns of every width.",
            [("types", Block("plc-2", seconds(5), every_type(5)))],
        ),
        ("two-blocks", "Two blocks that refer to two definitions.", two),
    ]


def definition_vectors() -> list[Vector]:
    """Definitions, messages that refer to them, and one that refers to nothing known."""
    said = [
        Vector(
            f"definition-{name}",
            "definition",
            about,
            message_of(name),
            {"definition": plain_definition(ref_of(name), one)},
        )
        for name, (about, one) in DEFINITIONS.items()
    ]
    sent = [
        Vector(
            f"referring-{name}",
            "telemetry",
            about,
            referring(*blocks),
            {
                "needs": [f"definition-{needed}" for needed, _ in blocks],
                "batch": plain(batch(*(block for _, block in blocks), seq=8)),
            },
        )
        for name, about, blocks in referring_blocks()
    ]
    [two] = [blocks for name, _, blocks in referring_blocks() if name == "two-blocks"]
    about = "Two definitions are needed, one is there: the other is asked for."
    expected = {"needs": ["definition-types"], "missing": [ref_of("worked-example").hex()]}
    return [*said, *sent, Vector("referring-missing", "telemetry", about, referring(*two), expected)]


# --- the JSON form ---------------------------------------------------------------------------------------------------


def json_vectors() -> list[Vector]:
    """One map in every wrapping, and one with the limits of JSON's numbers."""
    message = {
        "schemaVersion": 1,
        "timestamp": TIME_US // 1000,
        "seq": 7,
        "values": {"temp": 20.5, "n": 20, "on": True, "name": "Größe", "gone": None},
        "gateway": "gw-1",
        "epoch": "0011223344556677",
        "quality": {"temp": "uncertain", "n": "good", "gone": 0x800A0000},
        "aKeyThatNobodyKnows": {"is": ["ignored"]},
    }
    expected = batch(
        Block(
            "",
            [TIME_US],
            [
                Column("temp", ValueType.FLOAT64, [20.5], quality=[Quality.UNCERTAIN]),
                Column("n", ValueType.FLOAT64, [20.0]),
                Column("on", ValueType.BOOL, [True]),
                Column("name", ValueType.STRING, ["Größe"]),
                Column("gone", ValueType.FLOAT64, [None], quality=[Quality.BAD_TIMEOUT]),
            ],
        )
    )
    text = json.dumps(message, ensure_ascii=False).encode()
    packed: bytes = msgpack.packb(message)
    streamed = zstandard.ZstdCompressor(write_checksum=True).compressobj()
    wrappings = [
        ("json-plain", "The JSON form as it is.", b" \r\n\t" + text + b"\n"),
        ("json-gzip", "The same in gzip.", gzip.compress(text, mtime=0)),
        ("json-zlib", "The same in zlib.", zlib.compress(text)),
        (
            "json-zstd",
            "The same in Zstandard, without declared content size.",
            streamed.compress(text) + streamed.flush(),
        ),
        ("json-messagepack", "The same map in MessagePack.", packed),
        ("json-messagepack-zstd", "The same map in MessagePack in Zstandard.", zstandard.compress(packed)),
    ]
    whole = {"batch": plain(expected)}
    return [*(Vector(name, "telemetry", about, data, whole) for name, about, data in wrappings), json_numbers()]


def json_numbers() -> Vector:
    """How JSON's numbers become types."""
    text = (
        '{"seq":1,"schemaVersion":1,"timestamp":0,"values":{"a":9007199254740992,"b":9007199254740993,'
        '"c":-9007199254740993,"d":9223372036854775807,"e":9223372036854775808,"f":18446744073709551615,'
        '"g":-9223372036854775808,"h":1e3,"i":-0.0,"j":5e-324,"k":null}}'
    )
    columns = [
        Column("a", ValueType.FLOAT64, [9007199254740992.0]),
        Column("b", ValueType.INT, [9007199254740993]),
        Column("c", ValueType.INT, [-9007199254740993]),
        Column("d", ValueType.INT, [9223372036854775807]),
        Column("e", ValueType.UINT, [9223372036854775808]),
        Column("f", ValueType.UINT, [18446744073709551615]),
        Column("g", ValueType.INT, [-9223372036854775808]),
        Column("h", ValueType.FLOAT64, [1000.0]),
        Column("i", ValueType.FLOAT64, [-0.0]),
        Column("j", ValueType.FLOAT64, [5e-324]),
        Column("k", ValueType.FLOAT64, [None], quality=[Quality.BAD]),
    ]
    expected = {"batch": plain(Batch("", "", 1, [Block("", [0], columns)]))}
    return Vector("json-numbers", "telemetry", "How JSON's numbers become types.", text.encode(), expected)


# --- status, will, confirm -------------------------------------------------------------------------------------------


def told(message: Status | Confirm) -> dict[str, Any]:
    """Every key, defaults filled in, null for what is not there."""
    content: dict[str, Any] = message.model_dump(mode="json", by_alias=True)
    return content


def other_vectors() -> list[Vector]:
    """Status, will and confirm."""
    online = Status(
        timestamp=TIME_US // 1000,
        state="online",
        session=12,
        epoch="0011223344556677",
        instance="00ff00ff00ff00ff",
        host="line-7-pc",
        gateway=status.GatewayInfo(thing_name="gw-1", version="0.1.0", uptime_sec=3600),
        health=status.Health(
            internet="ok",
            plc_link="degraded",
            buffer=status.Buffer(
                queued_messages=3,
                kept_bytes=1_000_000,
                bytes=12_345,
                limit_bytes=1 << 30,
                oldest_sec=61,
                full_in_sec=86_400,
            ),
        ),
        machines={
            "press-1": status.MachineNumbers(last_seq=120, sent_seq=117, sent_highest=119, dropped=[(3, 9, "full")])
        },
        devices={
            "plc-1": status.DeviceLink(machine="press-1", state="ok", since=TIME_US // 1000 - 5, readings=42),
            "plc-2": status.DeviceLink(machine="press-1", state="away", since=1, reason="plc-2: no answer", readings=0),
        },
        others={"press-1": {"8899aabbccddeeff": status.MachineNumbers(last_seq=9, sent_seq=9)}},
        dropped_count=7,
        dropped_readings=70_000,
        clock=status.Clock(synchronised=False, span="ff" * 16, marked=7, zeros={"00" * 16: TIME_US}),
        config_hash="89abcdef01234567",
        certificate_days_left=30,
    )
    goodbye = online.model_copy(update={"state": "offline", "reason": status.REASON_SHUTDOWN})
    will = status.will(12, TIME_US // 1000, "0011223344556677")
    least = b'{"schemaVersion":1,"timestamp":1496275200000,"state":"online","fromTheFuture":{"is":"ignored"}}'
    confirm = Confirm(
        timestamp=TIME_US // 1000,
        machines={
            "press-1": MachineConfirm(
                epoch="0011223344556677",
                through=110,
                highest=119,
                missing=[(111, 111), (115, 117)],
                definitions=["00ff00ff00ff"],
            ),
            "press-2": MachineConfirm(epoch="", through=0),
        },
        others={"press-1": [MachineConfirm(epoch="8899aabbccddeeff", through=9, highest=9)]},
        receiver="ffeeddccbbaa9988",
    )
    fenced = Confirm(
        timestamp=TIME_US // 1000, machines={}, fenced="two installations; stop one", fenced_instance="00ff00ff00ff00ff"
    )
    said: list[tuple[str, str, bytes, Status]] = [
        ("status-online", "A heartbeat with every key.", online.encode(), online),
        ("status-goodbye", "A planned stop.", goodbye.encode(), goodbye),
        ("status-will", "A last will.", will.encode(), will),
        ("status-least", "The least that is a status.", least, Status(timestamp=TIME_US // 1000, state="online")),
    ]
    return [
        *(Vector(name, "status", about, data, {"status": told(one)}) for name, about, data, one in said),
        Vector("confirm", "confirm", "A confirm for two machines.", confirm.encode(), {"confirm": told(confirm)}),
        Vector("confirm-fenced", "confirm", "One of two is to be silent.", fenced.encode(), {"confirm": told(fenced)}),
    ]


# --- what is refused -------------------------------------------------------------------------------------------------


def changed(change: Callable[[list[Any]], object]) -> bytes:
    """The worked example with something wrong inside a right frame."""
    value = frames.unpack(encode(worked_example()))
    change(value)
    return frames.pack(value)


def in_block(at: int, wrong: Any) -> bytes:
    """The worked example with another part `at` in its block."""
    return changed(lambda message: message[4][0].__setitem__(at, wrong))


def least_json(**wrong: Any) -> bytes:
    """A small message of the JSON form with other keys."""
    return json.dumps({"schemaVersion": 1, "timestamp": 1, "seq": 1, "values": {"t": 1}} | wrong).encode()


def refused_vectors() -> list[Vector]:
    """One fault each."""
    good = encode(worked_example())
    streams = frames.unpack(good)[4][0][5]
    endless = [streams[0], b"\xff" * 11, *streams[2:]]
    left_over = [*streams[:5], streams[5] + bytes(8)]
    many = {
        "timestamp": 1,
        "machines": {"m": {"epoch": "", "through": 0, "missing": [[n, n] for n in range(2, 204, 2)]}},
    }
    made: list[tuple[str, str, str, str, bytes]] = [
        ("empty", "telemetry", "frame", "Nothing at all.", b""),
        ("historical-twice", "telemetry", "frame", "Marked twice.", mark(mark(least_json()))),
        (
            "historical-other",
            "telemetry",
            "frame",
            "Another mark.",
            b"\x50\x2a\x4d\x18\x01\x00\x00\x00\x02" + least_json(),
        ),
        ("clock-twice", "telemetry", "frame", "Two marks of clocks.", CLOCK.encode() * 2 + least_json()),
        ("clock-first", "telemetry", "frame", "The marks in the wrong order.", CLOCK.encode() + mark(least_json())),
        ("clock-cut-short", "telemetry", "frame", "Half a mark.", CLOCK.encode()[:20]),
        ("clock-far", "telemetry", "frame", "A zero beyond all times.", CLOCK._replace(zero_us=MAX_US + 1).encode()),
        ("historical-alone", "telemetry", "frame", "A mark and no message.", mark(b"")),
        ("unknown-form", "telemetry", "frame", "First bytes that are in no row of the table.", b"\x01\x02\x03\x04"),
        ("zstd-cut-short", "telemetry", "frame", "A frame without its end.", good[:-5]),
        ("zstd-checksum", "telemetry", "frame", "A frame with a wrong checksum.", good[:-1] + bytes([good[-1] ^ 1])),
        ("zstd-trailing", "telemetry", "frame", "Bytes after the frame.", good + b"\x00"),
        ("zstd-in-zstd", "telemetry", "frame", "Compression within compression.", zstandard.compress(good)),
        ("zstd-bomb", "telemetry", "limit", "Declares 32 MiB.", zstandard.compress(bytes(32 << 20))),
        ("gzip-bomb", "telemetry", "limit", "Expands to 17 MiB.", gzip.compress(bytes(17 << 20), mtime=0)),
        ("key-twice", "telemetry", "frame", "A key stands twice in one map.", b"\x82\xa1a\x01\xa1a\x02"),
        ("extension-type", "telemetry", "frame", "A MessagePack extension type.", b"\x91\xd4\x05\x00"),
        ("json-nan", "telemetry", "frame", "NaN in JSON.", least_json(values={"t": math.nan})),
        ("json-infinity", "telemetry", "content", "1e999.", least_json().replace(b'"t": 1', b'"t": 1e999')),
        ("json-too-deep", "telemetry", "limit", "Nine levels.", b'{"a":' * 8 + b"1" + b"}" * 8),
        ("json-version", "telemetry", "version", "schemaVersion 2.", least_json(schemaVersion=2)),
        ("json-seq-zero", "telemetry", "limit", "seq 0.", least_json(seq=0)),
        ("json-seq-float", "telemetry", "content", "seq 1.0 is no whole number.", least_json(seq=1.0)),
        ("json-nested-value", "telemetry", "content", "A map as value.", least_json(values={"t": {"u": 1}})),
        ("json-half-a-character", "telemetry", "content", "Half a surrogate pair.", least_json(values={"t": "\ud800"})),
        ("json-strange-quality", "telemetry", "content", "A quality of no tag.", least_json(quality={"u": "bad"})),
        ("version", "telemetry", "version", "schemaVersion 3.", changed(lambda m: m.__setitem__(0, 3))),
        ("epoch-as-text", "telemetry", "content", "A text for bytes.", changed(lambda m: m.__setitem__(2, "00"))),
        ("rows-beyond-limit", "telemetry", "limit", "100,001 rows.", in_block(1, 100_001)),
        ("name-twice", "telemetry", "content", "A tag twice.", in_block(2, ["temp", "run", "flow", "temp"])),
        ("unknown-type", "telemetry", "content", "Type 6.", in_block(3, b"\x03\x00\x01\x06")),
        ("varint-too-long", "telemetry", "content", "An endless integer in `firsts`.", in_block(5, endless)),
        ("stream-left-over", "telemetry", "content", "A stream longer than its columns.", in_block(5, left_over)),
        (
            "row-out-of-block",
            "telemetry",
            "content",
            "A row beyond the block's.",
            in_block(7, {3: [[0, 3], None, None, {}]}),
        ),
        ("runs-too-short", "telemetry", "content", "Units for three of four.", in_block(4, [3, "x"])),
        (
            "status-version",
            "status",
            "version",
            "schemaVersion 2.",
            b'{"schemaVersion":2,"timestamp":1,"state":"online"}',
        ),
        ("status-time", "status", "limit", "Beyond the year 9999.", b'{"timestamp":253402300800000,"state":"online"}'),
        (
            "status-state",
            "status",
            "content",
            "An unknown state.",
            b'{"schemaVersion":1,"timestamp":1,"state":"asleep"}',
        ),
        ("confirm-ranges", "confirm", "limit", "101 missing ranges.", json.dumps({"schemaVersion": 1} | many).encode()),
        ("confirm-not-json", "confirm", "frame", "Cut short.", b'{"schemaVersion":1,"timestamp":'),
    ]
    return [Vector(f"refuse-{name}", kind, about, data, {"refuse": why}) for name, kind, why, about, data in made]


def worked_definition(at: int, wrong: Any) -> bytes:
    """The worked definition with another part `at`."""
    parts = frames.unpack(message_of("worked-example"))
    parts[at] = wrong
    return frames.pack(parts)


def in_referring(at: int, wrong: Any) -> bytes:
    """The worked referring message with another part `at` in its block."""
    message = frames.unpack(referring(*referring_blocks()[0][2]))
    block = [*message[2][0], *[None] * (7 - len(message[2][0]))]
    block[at] = wrong
    return frames.pack([*message[:2], [block]])


def refused_references() -> list[Vector]:
    """One fault each, in a definition or in a message that refers to one."""
    other = Block("plc-1", [TIME_US], [Column("temp", ValueType.FLOAT64, [1.0])])
    mixed = referring(referring_blocks()[0][2][0], ("other-epoch", other))
    faults: list[tuple[str, str, str, bytes]] = [
        ("version", "version", "Version 2.", worked_definition(0, 2)),
        ("parts", "content", "Ten parts.", frames.pack(frames.unpack(message_of("worked-example"))[:10])),
        ("no-epoch", "content", "An empty epoch.", worked_definition(2, b"")),
        ("name-twice", "content", "A tag twice.", worked_definition(6, ["temp", "run", "flow", "temp"])),
        (
            "int-exponent",
            "content",
            "A decimal exponent of a column of int.",
            worked_definition(9, b"\x01\x00\x01\x0f"),
        ),
        ("exponent", "content", "An exponent over 15.", worked_definition(9, b"\x10\x00\x00\x0f")),
        ("wide-pattern", "content", "Eight bytes as pattern of a float32.", worked_definition(7, b"\x03\x00\x01\x03")),
        ("few-firsts", "content", "Three first values for four tags.", worked_definition(10, b"\0\0\0")),
    ]
    wrong: list[tuple[str, str, str, bytes]] = [
        ("no-block", "limit", "No block.", frames.pack([2, 8, []])),
        ("short-reference", "content", "A reference of five bytes.", in_referring(0, b"short")),
        ("two-epochs", "content", "Blocks of two epochs.", mixed),
        ("no-streams", "content", "No stream.", in_referring(1, [])),
        ("stream-left-over", "content", "A stream longer than its columns.", in_referring(1, [b"\x02\x02\x00", b"\0"])),
        ("rows-beyond-limit", "limit", "100,001 rows.", in_referring(2, 100_001)),
        ("time-scale", "content", "Times of an unknown scale.", in_referring(3, b"\x01\x01\x00")),
        ("modes-short", "content", "A mode is missing.", in_referring(3, b"\x03\x01")),
        ("no-extras", "content", "The bool column has no bits.", in_referring(4, None)),
        ("column-beyond", "content", "A column beyond the definition's.", in_referring(6, [0, 1, 3])),
        ("column-twice", "content", "A column twice.", in_referring(6, [0, 1, 0])),
        ("all-columns", "content", "Three columns are there, four are said to be.", in_referring(6, None)),
    ]
    needs = ["definition-worked-example", "definition-other-epoch"]
    return [
        *(
            Vector(f"refuse-definition-{name}", "definition", about, data, {"refuse": why})
            for name, why, about, data in faults
        ),
        *(
            Vector(f"refuse-referring-{name}", "telemetry", about, data, {"needs": needs, "refuse": why})
            for name, why, about, data in wrong
        ),
    ]


def vectors() -> list[Vector]:
    """All of them."""
    return [
        *binary_vectors(),
        *definition_vectors(),
        *json_vectors(),
        *other_vectors(),
        *refused_vectors(),
        *refused_references(),
    ]


def write(directory: Path) -> None:
    """Write what has changed, and remove what is no vector any more."""
    directory.mkdir(parents=True, exist_ok=True)
    made = vectors()
    for vector in made:
        (directory / f"{vector.name}.json").write_text(dumps(vector.document()), encoding="utf-8")
        path = directory / f"{vector.name}.bin"
        fresh = inside(vector.payload)
        if not path.exists() or (inside(path.read_bytes()) if fresh is not None else path.read_bytes()) != (
            fresh if fresh is not None else vector.payload
        ):
            path.write_bytes(vector.payload)
    known = {vector.name for vector in made}
    for path in directory.iterdir():
        if path.stem not in known:
            path.unlink()


if __name__ == "__main__":
    write(DIRECTORY)
