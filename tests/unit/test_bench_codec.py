"""What the codec rows of the bench stand on: the peers' forms carry everything, and a changed message is noticed."""

from __future__ import annotations

import gzip
import itertools
import json
import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import codec, codec_speed, limits_codec, limits_store, mixes, recordings, wire
from bench.limits_store import Readings, Stored
from bench.peers import gorilla
from bench.processes import RunFailed
from bench.recordings import Recording, RecordingError, Tag
from protocols.uplink import arrays
from protocols.uplink.batch import Batch, Block, Column
from protocols.values import ValueType

PATTERNS = st.integers(0, 2**64 - 1)
TIMES = st.lists(st.integers(-(2**60), 2**60), max_size=40)
EVERY_MIX = [*mixes.KINDS, "everything"]


def as_float(pattern: int) -> float:
    (value,) = struct.unpack("<d", struct.pack("<Q", pattern))
    return float(value)


def patterns(values: list[float]) -> bytes:
    return struct.pack(f"<{len(values)}d", *values)


# --- Gorilla ----------------------------------------------------------------------------------------------------------


@given(st.lists(PATTERNS.map(as_float), max_size=40))
def test_gorilla_gives_every_float_back_bit_for_bit(values: list[float]) -> None:
    assert patterns(gorilla.decode_values(gorilla.encode_values(values), len(values))) == patterns(values)


@given(st.lists(st.sampled_from([0.0, -0.0, 1.0, 1.5, 1e300, math.inf, 12.0, 24.0]), max_size=40))
def test_gorilla_gives_near_floats_back(values: list[float]) -> None:
    assert patterns(gorilla.decode_values(gorilla.encode_values(values), len(values))) == patterns(values)


@given(TIMES)
def test_gorilla_gives_every_time_back(times: list[int]) -> None:
    assert gorilla.decode_times(gorilla.encode_times(times), len(times)) == times


def test_gorilla_writes_the_values_of_the_papers_figure_2() -> None:
    bits = gorilla.encode_values([12.0, 24.0, 15.0, 12.0, 35.0])
    assert bits[:64] == f"{0x4028000000000000:064b}"
    rest = bits[64:]
    for leading, meaningful in ((11, "1"), (11, "1011")):  # figure 2: 11 leading zeros, 1 and 4 meaningful bits
        block = f"11{leading:05b}{len(meaningful):06b}{meaningful}"
        assert rest.startswith(block)
        rest = rest[len(block) :]
    assert rest.startswith("100011")  # 0x0006…: within the block before it
    assert rest[6:].startswith(f"11{9:05b}{8:06b}")  # the last XOR has 9 leading zeros and 8 meaningful bits
    assert len(rest) == 6 + 2 + 5 + 6 + 8


def test_gorilla_spends_one_bit_on_what_repeats() -> None:
    assert len(gorilla.encode_values([7.25] * 60)) == 64 + 59
    assert len(gorilla.encode_times(list(range(1000, 1600, 10)))) == 64 + len("10") + 7 + 58


@pytest.mark.parametrize(
    ("difference", "bits"),
    [(0, 1), (-63, 9), (64, 9), (65, 12), (-64, 12), (256, 12), (-256, 16), (2048, 16), (2049, 36), (2**40, 100)],
)
def test_gorilla_uses_the_papers_classes_of_time_differences(difference: int, bits: int) -> None:
    assert len(gorilla.encode_times([0, 0, difference])) == 64 + 1 + bits


# --- forms ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY_MIX)
@pytest.mark.parametrize("scans", [1, 60])
def test_ours_and_messagepack_give_every_mix_back(name: str, scans: int) -> None:
    recording = mixes.mix(name, 24, 120)
    ours, columns = wire.Wire(recording.device, recording.named()), wire.MsgpackColumns()
    for batch in recording.batches(scans, 10**9):
        assert wire.same(ours.decode(ours.encode(batch)), batch)
        assert wire.same(columns.decode(columns.encode(batch)), batch)
    assert ours.beside, "nothing was said of the tags, so their names were not counted"


@pytest.mark.parametrize("name", EVERY_MIX)
def test_json_holds_every_reading(name: str) -> None:
    for batch in mixes.mix(name, 24, 60).batches(30, 10**9):
        content = json.loads(wire.json_rows(batch))
        [block] = batch.blocks
        assert (content["gateway"], content["epoch"], content["seq"]) == (batch.gateway, batch.epoch, batch.seq)
        assert [round(scan["timestamp"] * 1000) for scan in content["scans"]] == list(block.times_us)
        for column in block.columns:
            rows = range(len(block.times_us)) if column.rows is None else column.rows
            found = [content["scans"][row]["values"][column.name] for row in rows]
            quality = [content["scans"][row].get("quality", {}).get(column.name, 0) for row in rows]
            assert found == list(column.values)
            assert quality == list(column.quality or [0] * len(found))
        assert sum(len(scan["values"]) for scan in content["scans"]) == batch.readings()


def column(values: list[float], kind: ValueType = ValueType.FLOAT64) -> Column:
    return Column("t", kind, values, "bar", [0, 2], [0, 0x40000000], {1: "why"})


BATCH = Batch("gw", "00", 7, [Block("plc", [1, 2, 3], [column([0.0, 1.0])])])
NAN, OTHER_NAN = as_float(0x7FF8000000000000), as_float(0x7FF8000000000001)


@pytest.mark.parametrize(
    "other",
    [
        column([-0.0, 1.0]),
        column([0.0, math.nextafter(1.0, 2.0)]),
        column([0.0, 1.0], ValueType.FLOAT32),
        replace(column([0.0, 1.0]), name="u"),
        replace(column([0.0, 1.0]), unit=""),
        replace(column([0.0, 1.0]), rows=[0, 1]),
        replace(column([0.0, 1.0]), quality=None),
        replace(column([0.0, 1.0]), reasons={}),
        replace(column([0.0, 1.0]), values=[0.0, None]),
    ],
)
def test_a_changed_column_is_noticed(other: Column) -> None:
    assert wire.same(BATCH, replace(BATCH, blocks=[replace(BATCH.blocks[0], columns=[column([0.0, 1.0])])]))
    assert not wire.same(BATCH, replace(BATCH, blocks=[replace(BATCH.blocks[0], columns=[other])]))


def test_a_changed_payload_of_a_nan_is_noticed() -> None:
    def of(value: float) -> Batch:
        return replace(BATCH, blocks=[replace(BATCH.blocks[0], columns=[column([value, value])])])

    assert wire.same(of(NAN), of(NAN))
    assert not wire.same(of(NAN), of(OTHER_NAN))


@pytest.mark.parametrize("change", [{"seq": 8}, {"gateway": "g"}, {"epoch": "01"}, {"blocks": []}])
def test_a_changed_head_is_noticed(change: dict[str, object]) -> None:
    assert not wire.same(BATCH, replace(BATCH, **change))  # type: ignore[arg-type]  # each value fits its key
    moved = replace(BATCH.blocks[0], times_us=[1, 2, 4])
    assert not wire.same(BATCH, replace(BATCH, blocks=[moved]))


# --- recordings -------------------------------------------------------------------------------------------------------


def test_a_recording_of_another_plant_is_read(tmp_path: Path) -> None:
    path = tmp_path / "other.csv.gz"
    text = "t;temp;on;state\n1700000000;20,5;true;idle\n1700000001;;false;run\n1700000002;-3,25;TRUE;\n"
    path.write_bytes(gzip.compress(text.encode("utf-8-sig")))
    found = recordings.load(path)
    assert found.times_us == [1_700_000_000_000_000, 1_700_000_001_000_000, 1_700_000_002_000_000]
    assert list(found.tags) == [
        Tag("temp", ValueType.FLOAT64, [20.5, -3.25], rows=[0, 2]),
        Tag("on", ValueType.BOOL, [True, False, True]),
        Tag("state", ValueType.STRING, ["idle", "run"], rows=[0, 1]),
    ]


@pytest.mark.parametrize("time", ["1700000000", "1700000000000", "1700000000000000", "2023-11-14T22:13:20Z"])
def test_times_are_read_in_any_unit(tmp_path: Path, time: str) -> None:
    path = tmp_path / "times.csv"
    path.write_text(f"t,a\n{time},1\n")
    assert recordings.load(path).times_us == [1_700_000_000_000_000]


@pytest.mark.parametrize("text", ["", "t,a\n", "t\n1\n", "t,a\n1,2,3\n", "t,a\nyesterday,1\n", "t,a,a\n1,2,3\n"])
def test_what_is_no_recording_is_refused_in_a_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(RecordingError, match=r"bad\.csv"):
        recordings.load(path)


def test_batches_hold_every_reading_once() -> None:
    recording = mixes.mix("sparse OPC UA changes", 10, 240)
    found: dict[str, list[tuple[int, object]]] = {tag.name: [] for tag in recording.tags}
    for batch in recording.batches(60, 10**9):
        [block] = batch.blocks
        for each in block.columns:
            rows = range(len(block.times_us)) if each.rows is None else each.rows
            found[each.name] += [(block.times_us[row], value) for row, value in zip(rows, each.values, strict=True)]
    for tag in recording.tags:
        assert tag.rows is not None
        assert found[tag.name] == [
            (recording.times_us[row], value) for row, value in zip(tag.rows, tag.values, strict=True)
        ]


def test_of_a_long_recording_some_pieces_are_taken() -> None:
    values = [float(row) for row in range(1000)]
    recording = Recording("long", "plc", range(1000), [Tag("a", ValueType.FLOAT64, values)])
    firsts = [batch.blocks[0].times_us[0] for batch in recording.batches(10, 200)]
    assert len(firsts) == 20
    assert (firsts[0], firsts[-1]) == (0, 990)
    assert sum(b - a == 10 for a, b in itertools.pairwise(firsts)) == 20 - recordings.WINDOWS


# --- rows -------------------------------------------------------------------------------------------------------------


def test_a_row_counts_the_definitions_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(limits_codec, "PYTHON", tmp_path / "python")
    recording = mixes.mix("everything", 16, 60)
    row = codec.bytes_row(recording, 60, 10**9, 0.2)
    [batch] = recording.batches(60, 10**9)
    ours = wire.Wire(recording.device, recording.named())
    whole = len(ours.encode(batch)) + sum(len(said.message) for said in ours.beside)
    assert row.ours == whole / batch.readings()
    assert row.peers["JSON"] == len(wire.json_rows(batch)) / batch.readings()
    assert row.aim == ("<=", 0.2)


def test_without_pcodec_the_row_says_so(tmp_path: Path) -> None:
    with pytest.raises(limits_codec.Absent, match="not installed"):
        limits_codec.pcodec([], tmp_path / "python")


def test_gorilla_times_of_a_regular_block_cost_little() -> None:
    recording = Recording(
        "r", "plc", range(0, 60_000_000, 1_000_000), [Tag(name, ValueType.FLOAT64, [1.0] * 60) for name in "abcd"]
    )
    row = codec.bytes_row(recording, 60, 10**9, None)
    values = -(-4 * (64 + 59) // 8)
    times = -(-4 * (64 + 9 + 58) // 8)
    assert row.peers["values only: Gorilla"] == values / 240
    assert row.peers["Gorilla, times and values"] == pytest.approx((values + times) / 240)


@pytest.mark.parametrize("write", [limits_store.executemany, limits_store.inserts])
def test_bare_writing_stores_and_counts(tmp_path: Path, write: Callable[[Path, Sequence[Readings]], Stored]) -> None:
    messages = [[(series, time_us, 0.5, 0) for series in range(210)] for time_us in range(4)]
    stored = write(tmp_path / "bare.db", messages)
    assert stored.rows == 840
    with pytest.raises(RunFailed, match="distinct"):
        write(tmp_path / "twice.db", [messages[0], messages[0]])


# --- speed ------------------------------------------------------------------------------------------------------------


def forms_of(name: str, tags: int, *, with_arrays: bool) -> dict[str, dict[str, float]]:
    """Measured as briefly as can be; that what comes out is what went in is checked by `measure` itself."""
    first, second = mixes.mix(name, tags, 20).batches(10, 10**9)
    forms = codec_speed._forms(mixes.mix(name, tags, 20), [first], with_arrays=with_arrays)
    return {form.name: codec_speed.measure(form, [second], 0.0) for form in forms}


@pytest.mark.parametrize("name", ["noisy float32", "booleans", "texts"])
def test_whole_rows_are_measured_in_every_form(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numpy", reason='the extra "fast" is not installed')
    monkeypatch.setattr(arrays, "READINGS_MIN", 0)
    found = forms_of(name, 12, with_arrays=True)
    assert list(found) == ["lists", "rows", "arrays", "zstd alone", "msgpack + zstd"]
    assert all(figure > 0 for form in found.values() for figure in form.values())
    assert found["arrays"]["bytes"] == found["lists"]["bytes"]


@pytest.mark.parametrize("name", ["everything", "sparse OPC UA changes"])
def test_what_is_not_whole_is_not_measured_as_arrays_or_rows(name: str) -> None:
    assert list(forms_of(name, 24, with_arrays=True)) == ["lists", "zstd alone", "msgpack + zstd"]


def test_a_message_that_does_not_come_back_ends_the_measurement() -> None:
    [batch] = mixes.mix("counters", 3, 10).batches(10, 10**9)
    other = replace(batch, seq=batch.seq + 1)
    form = codec_speed.Form("odd", lambda one: one, lambda _: b"", lambda _: other, lambda _: other)
    with pytest.raises(AssertionError, match="odd: a message did not come back"):
        codec_speed.measure(form, [batch], 0.0)


def test_the_parts_of_a_wide_group_are_compared_as_one() -> None:
    [batch] = mixes.mix("everything", 6000, 2).batches(2, 10**9)
    ours = wire.Wire(batch.blocks[0].device, mixes.mix("everything", 6000, 2).named())
    decoded = ours.decode(ours.encode(batch))
    assert len(decoded.blocks) > 1
    assert wire.same(codec_speed._joined(decoded), batch)


def test_an_aim_stands_beside_its_figure_and_the_limit() -> None:
    forms = {name: {"encode": 10.0, "decode": 5.0} for name in ("arrays", "lists", "zstd alone", "msgpack + zstd")}
    row = codec._speed_row("x", "encode", forms, "arrays", 100e6)
    assert (row.ours, row.limit, row.met()) == (100e6, ("zstd alone", 100e6), True)
    del forms["arrays"], forms["lists"]
    assert codec._speed_row("x", "encode", forms, "lists", None).note == "numpy is not installed"
