"""The telemetry envelope: lossless for every bit pattern, bounded for whatever a stranger sends."""

from __future__ import annotations

import gzip
import json
import math
import struct
import zlib
from typing import Any

import msgpack
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from protocols.uplink import frames
from protocols.uplink.batch import SEQ_MAX, Batch, Block, Column
from protocols.uplink.envelope import EnvelopeError, decode, encode, encode_json
from protocols.values import Value, ValueType

TIME = 1_496_275_200_000_000


def bits(value: Value) -> Any:
    """A value with its exact bits, so that -0.0, NaN payloads and True ≠ 1 are told apart."""
    return (type(value), struct.pack("<d", value)) if isinstance(value, float) else (type(value), value)


def same(a: Batch, b: Batch) -> bool:
    def plain(batch: Batch) -> Any:
        return (
            batch.gateway,
            batch.epoch,
            batch.seq,
            [
                (
                    block.device,
                    list(block.times_us),
                    [
                        (
                            c.name,
                            c.type,
                            c.unit,
                            [bits(v) for v in c.values],
                            None if c.rows is None else list(c.rows),
                            list(c.quality) if c.quality is not None and any(c.quality) else None,
                            dict(c.reasons),
                        )
                        for c in block.columns
                    ],
                )
                for block in batch.blocks
            ],
        )

    return bool(plain(a) == plain(b))


def float32(pattern: int) -> float:
    return float(struct.unpack("<f", struct.pack("<I", pattern))[0])


def float64(pattern: int) -> float:
    return float(struct.unpack("<d", struct.pack("<Q", pattern))[0])


VALUES: dict[ValueType, st.SearchStrategy[Any]] = {
    ValueType.BOOL: st.booleans(),
    ValueType.INT: st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-300, 300)),
    ValueType.UINT: st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 70_000)),
    ValueType.FLOAT32: st.one_of(
        st.integers(0, 2**32 - 1).map(float32), st.integers(-9999, 9999).map(lambda n: float32_of(n / 10))
    ),
    ValueType.FLOAT64: st.one_of(
        st.integers(0, 2**64 - 1).map(float64), st.integers(-99999, 99999).map(lambda n: n / 100)
    ),
    ValueType.STRING: st.text(max_size=40),
}


def float32_of(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


@st.composite
def columns(draw: st.DrawFn, name: str, rows: int) -> Column:
    value_type = draw(st.sampled_from(list(ValueType)))
    at = draw(st.one_of(st.none(), st.lists(st.integers(0, rows - 1), unique=True).map(sorted))) if rows else None
    count = rows if at is None else len(at)
    one = VALUES[value_type]
    constant = draw(st.booleans())
    values = [draw(one)] * count if constant and count else [draw(one) for _ in range(count)]
    quality = draw(
        st.one_of(st.none(), st.lists(st.sampled_from([0, 0x80050000, 0xFFFFFFFF]), min_size=count, max_size=count))
    )
    if quality is not None and draw(st.booleans()):
        values = [None if code else value for value, code in zip(values, quality, strict=True)]
    reasons = draw(st.dictionaries(st.integers(0, count - 1), st.text(max_size=20))) if count else {}
    return Column(name, value_type, values, draw(st.text(max_size=5)), at, quality, reasons)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    blocks = []
    for _ in range(draw(st.integers(0, 3))):
        rows = draw(st.integers(0, 12))
        times = [draw(st.integers(0, 253_402_300_799_999_000)) for _ in range(rows)]
        names = draw(st.lists(st.text("abcXYZ_.09é", min_size=1, max_size=12), unique=True, max_size=5))
        blocks.append(Block(draw(st.text("plc-1", max_size=9)), times, [draw(columns(n, rows)) for n in names]))
    epoch = draw(st.binary(max_size=32)).hex()
    return Batch(draw(st.text("abc-1", max_size=9)), epoch, draw(st.integers(1, SEQ_MAX)), blocks)


@given(batches())
@settings(max_examples=300)
def test_what_goes_in_comes_out_bit_for_bit(batch: Batch) -> None:
    assert same(decode(encode(batch)), batch)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=50))
@example([0x7FF8_0000_DEAD_BEEF, 0xFFF0_0000_0000_0000, 0x8000_0000_0000_0000])
@example([struct.unpack("<Q", struct.pack("<d", v))[0] for v in (1e300, 1e16, 0.1, 5e-324, -1.5)])
def test_every_float64_pattern_survives(patterns: list[int]) -> None:
    column = Column("x", ValueType.FLOAT64, [float64(p) for p in patterns])
    got = decode(encode(one_block([column], len(patterns)))).blocks[0].columns[0]
    assert [struct.pack("<d", v) for v in got.values] == [struct.pack("<Q", p) for p in patterns]


def one_block(cols: list[Column], rows: int) -> Batch:
    times = [TIME + 1_000_000 * n for n in range(rows)]
    return Batch("gw-1", "0011223344556677", 7, [Block("plc-1", times, cols)])


def test_decimal_values_cost_little_and_one_odd_value_does_not_spoil_exactness() -> None:
    tenths = [round(20 + n * 0.1, 1) for n in range(600)]
    odd = [*tenths[:-1], math.pi]
    small = encode(one_block([Column("t", ValueType.FLOAT64, tenths)], 600))
    large = encode(one_block([Column("t", ValueType.FLOAT64, odd)], 600))
    assert len(small) < 150 < len(large)
    assert same(decode(large), one_block([Column("t", ValueType.FLOAT64, odd)], 600))


def test_the_json_form_in_every_wrapping() -> None:
    plain = encode_json(1000, 5, {"t": 21.5, "on": True, "name": "Größe", "n": 3, "gone": None}, gateway="gw-1")
    expected = decode(plain)
    assert [c.type for c in expected.blocks[0].columns] == ["float64", "bool", "string", "float64", "float64"]
    assert [c.values[0] for c in expected.blocks[0].columns] == [21.5, True, "Größe", 3.0, None]
    assert expected.blocks[0].columns[4].quality == [0x80000000]
    assert expected.blocks[0].times_us == [1_000_000]
    packed = msgpack.packb(json.loads(plain))
    streamed = zstandard.ZstdCompressor().compressobj()
    wrapped = [
        packed,
        gzip.compress(plain),
        zlib.compress(plain),
        zstandard.ZstdCompressor().compress(packed),
        streamed.compress(plain) + streamed.flush(),  # a frame that does not declare its size
        zlib.compress(packed, 9),
    ]
    for payload in wrapped:
        assert same(decode(payload), expected)


def test_quality_as_word_or_code() -> None:
    payload = encode_json(
        0, 1, {"a": 1.0, "b": 2.0, "c": 3.0}, quality={"a": "uncertain", "b": 0x80050000, "c": "good"}
    )
    cols = decode(payload).blocks[0].columns
    assert [c.quality for c in cols] == [[0x40000000], [0x80050000], None]


def with_window_of(log: int, raw: bytes, *, declared: bool) -> bytes:
    """`raw`, uncompressed, in a frame with a window of 2^log bytes (RFC 8878, 3.1.1)."""
    size = len(raw).to_bytes(4, "little") if declared else b""
    block = (len(raw) << 3 | 1).to_bytes(3, "little") + raw
    return b"\x28\xb5\x2f\xfd" + bytes([0x80 if declared else 0, (log - 10) << 3]) + size + block


def test_a_window_counts_only_where_the_size_is_not_declared() -> None:
    text = json_with(values={"t": "x" * 5000})
    assert frames.unpack(with_window_of(23, text, declared=False)) == json.loads(text)
    assert frames.unpack(with_window_of(27, text, declared=True)) == json.loads(text)
    with pytest.raises(frames.FrameError, match=r"^zstd: .*memory"):
        frames.unpack(with_window_of(24, text, declared=False))


def bomb(size: int) -> bytes:
    return zstandard.ZstdCompressor().compress(b"\x00" * size)


def undeclared_bomb(size: int) -> bytes:
    stream = zstandard.ZstdCompressor(level=19).compressobj()
    return stream.compress(b"\x00" * size) + stream.flush()


def json_with(**changed: Any) -> bytes:
    return json.dumps({"schemaVersion": 1, "timestamp": 1, "seq": 1, "values": {"t": 1}} | changed).encode()


GOOD = encode(one_block([Column("t", ValueType.FLOAT64, [1.5, 2.5, 3.5]), Column("b", ValueType.BOOL, [True] * 3)], 3))
ARRAY = frames.unpack(GOOD)


def array_with(change: Any) -> bytes:
    value = frames.unpack(GOOD)
    change(value)
    return frames.pack(value)


def set_block(at: int, value: Any) -> Any:
    return lambda array: array[4][0].__setitem__(at, value)


def constants_bomb() -> list[Any]:
    count = 1000
    streams = [b"\x00" * (count + 1), b"\x00" * (count + 1), b"", b"", b"", b""]
    return ["d", 100_000, [f"t{n}" for n in range(count)], b"\x01" * count, [count, ""], streams, [], {}]


STRANGE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty"),
    "too long": (b"{" * (frames.PAYLOAD_BYTES_MAX + 1), "over the limit"),
    "garbage": (b"\x01\x02garbage", "unknown form"),
    "zstd bomb": (bomb(256 << 20), "declares"),
    "zstd bomb without size": (undeclared_bomb(64 << 20), "expands to more"),
    "gzip bomb": (gzip.compress(b"\x00" * (17 << 20)), "expands to more"),
    "zstd in zstd": (zstandard.ZstdCompressor().compress(GOOD), "unknown form"),
    "zstd cut": (GOOD[:-3], "zstd: the frame is cut short"),
    "zstd flipped": (GOOD[:-1] + bytes([GOOD[-1] ^ 1]), "zstd"),
    "zstd with more behind": (GOOD + b"x", "zstd: more bytes follow"),
    "zlib cut": (zlib.compress(json_with())[:-4], "cut short"),
    "gzip with more behind": (gzip.compress(json_with()) + b"x", "more bytes follow"),
    "deep MessagePack": (b"\x91" * 2000 + b"\xc0", "MessagePack"),
    "deep JSON": (b'{"a":' * 5000 + b"1" + b"}" * 5000, "nested"),
    "a bit too deep": (b'{"a":' * 9 + b"1" + b"}" * 9, "nested deeper than 8"),
    "not UTF-8": (b'{"a":"\xff"}', "JSON"),
    "NaN in JSON": (b'{"schemaVersion":1,"timestamp":1,"seq":1,"values":{"t":NaN}}', "NaN is not a number"),
    "infinity by exponent": (b'{"schemaVersion":1,"timestamp":1,"seq":1,"values":{"t":1e999}}', "not a value"),
    "key twice": (b'{"a":1,"a":2}', "stands twice"),
    "key twice in MessagePack": (b"\x82\xa1a\x01\xa1a\x02", "stands twice"),
    "extension type": (b"\x91\xd4\x05\x00", "extension type 5"),
    "JSON list": (b"[1,2]", "unknown form"),
    "wrong version": (json_with(schemaVersion=2), "schemaVersion 2"),
    "version true": (json_with(schemaVersion=True), "schemaVersion True"),
    "no seq": (json_with(seq=None), "seq None"),
    "seq too large": (json_with(seq=2**64 - 1), "seq 18446744073709551615"),
    "seq zero": (json_with(seq=0), "seq 0"),
    "timestamp as text": (json_with(timestamp="now"), "timestamp"),
    "timestamp far": (json_with(timestamp=10**18), "timestamp"),
    "no values": (json_with(values={}), "values"),
    "nested value": (json_with(values={"t": {"u": 1}}), "not a value"),
    "number beyond 64 bits": (json_with(values={"t": 2**64}), "not a value"),
    "half a surrogate pair": (json_with(values={"t": "\ud800"}), "not a value"),
    "quality of an unknown tag": (json_with(quality={"u": 1}), "quality"),
    "quality as nonsense": (json_with(quality={"t": "fine"}), "quality 'fine'"),
    "name with a control character": (json_with(values={"a\n": 1}), "tag name"),
    "epoch as number": (json_with(epoch=5), "epoch"),
    "array: empty": (frames.pack([]), "schemaVersion"),
    "array: short": (frames.pack([1, "gw"]), "5 parts"),
    "array: version": (array_with(lambda a: a.__setitem__(0, 9)), "schemaVersion 9"),
    "array: gateway": (array_with(lambda a: a.__setitem__(1, 5)), "gateway"),
    "array: epoch": (array_with(lambda a: a.__setitem__(2, "x")), "epoch"),
    "array: blocks": (array_with(lambda a: a.__setitem__(4, 5)), "blocks"),
    "block: rows beyond": (array_with(set_block(1, 10**9)), "rows"),
    "block: rows of constants, a bomb": (
        array_with(lambda a: a.__setitem__(4, [constants_bomb()])),
        "more than 2000000 readings",
    ),
    "block: name twice": (array_with(set_block(2, ["t", "t"])), "twice"),
    "block: type unknown": (array_with(set_block(3, b"\x04\x77")), "types"),
    "block: streams": (array_with(set_block(5, [b""])), "six byte strings"),
    "block: mode missing": (array_with(set_block(5, [b""] * 6)), "mode"),
    "block: firsts endless": (array_with(set_block(5, [ARRAY[4][0][5][0], b"\xff" * 30, *[b""] * 4])), "64 bits"),
    "block: streams too long": (
        array_with(lambda a: a[4][0][5].__setitem__(5, b"\x00" * 8)),
        "more numbers than its columns",
    ),
    "block: odd stream": (array_with(lambda a: a[4][0][5].__setitem__(5, b"\x00" * 7)), "7 bytes"),
    "block: bits missing": (array_with(set_block(6, [])), "bool column"),
    "block: rows not ascending": (array_with(set_block(7, {0: [[1, 0, 1], None, None, {}]})), "not ascending"),
    "block: rows out of range": (array_with(set_block(7, {0: [[1, 1, 9], None, None, {}]})), "not ascending within"),
    "block: quality runs": (array_with(set_block(7, {0: [None, [2, 5], None, {}]})), "runs end"),
    "block: quality beyond 32 bits": (array_with(set_block(7, {0: [None, [3, 2**40], None, {}]})), "status code"),
    "block: reasons": (array_with(set_block(7, {0: [None, None, None, {9: "x"}]})), "reasons"),
    "block: exception of no tag": (array_with(set_block(7, {5: [None, None, None, {}]})), "do not match its tags"),
}


@pytest.mark.parametrize(("payload", "says"), STRANGE.values(), ids=STRANGE.keys())
def test_a_strange_message_is_refused_in_one_sentence(payload: bytes, says: str) -> None:
    with pytest.raises(EnvelopeError, match=says) as caught:
        decode(payload)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@given(st.one_of(st.binary(max_size=200), st.binary(max_size=100).map(lambda b: frames._ZSTD + b)))
@settings(max_examples=500)
def test_random_bytes_never_raise_anything_else(payload: bytes) -> None:
    with pytest.raises(EnvelopeError):
        decode(payload)


json_like = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(max_size=5), st.binary()
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=6), st.dictionaries(st.text(max_size=4), inner, max_size=4)),
    max_leaves=12,
)


@given(st.integers(0, 7), json_like)
@settings(max_examples=500)
def test_a_block_with_any_part_replaced_is_refused_or_still_a_block(at: int, value: Any) -> None:
    """Structured garbage: valid MessagePack in the right frame, wrong inside."""
    try:
        batch = decode(array_with(set_block(at, value)))
    except EnvelopeError:
        return
    assert batch.readings() >= 0


@given(st.integers(0, 5), st.binary(max_size=40))
@settings(max_examples=500)
def test_streams_of_garbage_are_refused_or_decode(at: int, data: bytes) -> None:
    try:
        batch = decode(array_with(lambda a: a[4][0][5].__setitem__(at, data)))
    except EnvelopeError:
        return
    assert batch.readings() == 6


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=4), st.sampled_from([1, 100, 1000]))
@settings(max_examples=60)
def test_a_compressor_that_is_used_again_makes_the_same_frames(raws: list[bytes], times: int) -> None:
    for raw in raws:
        frame = frames.compress(raw * times)
        assert zstandard.ZstdDecompressor().decompress(frame) == raw * times
        assert frame == frames.compress(raw * times)
        parameters = zstandard.get_frame_parameters(frame)
        assert (parameters.content_size, parameters.has_checksum) == (len(raw * times), True)
