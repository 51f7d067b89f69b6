"""What a machine's latest value says of why it is bad, though a gateway says a repeated reason once."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from agent.blocks import block
from cloud.store.packing import Sheet, pack
from cloud.store.packing import columns as columns_of
from protocols.field.contract import Group, Scan, Tag
from protocols.uplink import definition
from protocols.uplink.batch import Batch, Block, Column
from protocols.uplink.envelope import decode, encode, encode_referring
from protocols.uplink.flat import RowBlock
from protocols.values import Quality, Value, ValueType

VECTORS = Path(__file__).parents[2] / "docs" / "wire-vectors"
GROUP = Group("plc-1", "main", 1.0, (Tag("t", ValueType.FLOAT64),))
BAD, GOOD, INFO = Quality.BAD_TIMEOUT, Quality.GOOD, 0x00AF0000  # the last is good, with information


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ([(BAD, "no answer")], "no answer"),
        ([(BAD, "no answer"), (BAD, "no answer"), (BAD, "no answer")], "no answer"),
        ([(BAD, "no answer"), (BAD, "broken")], "broken"),
        ([(BAD, "no answer"), (GOOD, "")], ""),
        ([(BAD, "no answer"), (GOOD, ""), (BAD, "no answer")], "no answer"),
        ([(BAD, "no answer"), (INFO, "")], ""),
        ([(BAD, "no answer"), (INFO, ""), (BAD, "")], ""),
        ([(GOOD, ""), (GOOD, "")], ""),
    ],
)
def test_the_latest_value_has_its_reason(said: list[tuple[int, str]], reason: str) -> None:
    scans = [
        Scan(GROUP, 1000 * at, [None if code == BAD else 1.5], None, [code], {0: text} if text else {})
        for at, (code, text) in enumerate(said)
    ]
    sent = decode(encode(Batch("gw-1", "00ff", 1, [block(GROUP, scans)])))
    [packed] = pack(sent, 10**15)
    assert packed.newest == len(said) - 1
    assert packed.reason == reason


def test_whole_rows_are_taken_as_they_are_but_for_what_sqlite_cannot_keep() -> None:
    """The way of nearly all batches: by the definition, without an object per tag."""
    tags = [
        ("on", ValueType.BOOL, ""),
        ("count", ValueType.UINT, ""),
        ("speed", ValueType.FLOAT64, "rpm"),
        ("recipe", ValueType.STRING, ""),
    ]
    rows: list[list[Value]] = [[True, 5, 1.5, "a"], [False, 2**64 - 1, math.nan, "b"], [True, 2**63 - 1, math.inf, ""]]
    columns = [Column(name, kind, [row[at] for row in rows], unit) for at, (name, kind, unit) in enumerate(tags)]
    block = Block("plc-1", [1_000, 2_000, 3_000], columns)
    said = definition.define("gw-1", "00ff", "main", tags, block)
    sent = encode_referring(1, [definition.pack_referring(block, b"ref-01", said)])
    batch = decode(sent, lambda _: said)
    assert isinstance(batch.blocks[0], RowBlock)
    [sheet] = pack(batch, 10**15)
    assert isinstance(sheet, Sheet)
    assert (sheet.device, list(sheet.tags), sheet.newest) == ("plc-1", tags, 2)
    assert sheet.key.startswith(b"ref-01")
    expected = [[1, 5, 1.5, "a"], [0, str(2**64 - 1), "NaN", "b"], [1, 2**63 - 1, math.inf, ""]]
    assert [list(row) for row in sheet.rows] == expected
    assert {type(row[0]) for row in sheet.rows} == {int}, "a bool takes SQLite's binding the long way round"
    general = pack(Batch("gw-1", "00ff", 1, [block]), 10**15)
    assert [list(one.values) for one in columns_of([sheet])] == [list(one.values) for one in columns_of(general)]


def test_a_block_of_no_rows_is_nothing_to_store() -> None:
    """What the fuzzer found: no gateway of ours sends it."""
    message = bytes.fromhex("28b52ffd241ad100009302079195c406037fedc30f5a91c40000c4040000000091c40099dbe8cf")
    payloads = [path.read_bytes() for path in VECTORS.glob("*.bin")]
    said = next(definition.decode(one) for one in payloads if definition.ref(one).hex() == "037fedc30f5a")
    batch = decode(message, lambda _: said)
    assert [len(one.times_us) for one in batch.blocks] == [0]
    assert pack(batch, 0) == []
