"""The independent subscriber counts values by docs/wire.md: checked against the test vectors, which it did not make."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.subscriber import Book, Message, columns, head
from protocols.uplink.batch import Batch, Block, Column
from protocols.uplink.envelope import encode
from protocols.values import ValueType

VECTORS = Path(__file__).parents[2] / "docs" / "wire-vectors"
BINARY = sorted(
    path.with_suffix(".bin")
    for path in VECTORS.glob("*.json")
    if "batch" in json.loads(path.read_text()) and path.with_suffix(".bin").read_bytes()[:4] == b"\x28\xb5\x2f\xfd"
    if not path.name.startswith("json")
)


@pytest.mark.parametrize("path", BINARY, ids=lambda path: path.stem)
def test_the_head_says_how_many_values_there_are(path: Path) -> None:
    described = json.loads(path.with_suffix(".json").read_text())
    book = Book()
    for name in described.get("needs", []):
        book.learn(Message(0, "factory/b/b/b/m/definition/plc/main", (VECTORS / f"{name}.bin").read_bytes()))
    batch = described["batch"]
    values = [value for block in batch["blocks"] for column in block["columns"] for value in column["values"]]
    found = head(path.read_bytes(), book)
    assert found.seq == int(batch["seq"])
    assert found.values == sum(value is not None for value in values)


def test_the_info_registers_are_decoded_by_the_independent_decoder() -> None:
    names = [Column("stamp_us", ValueType.UINT, [1_790_000_000_000_000]), Column("polls", ValueType.UINT, [41])]
    payload = encode(Batch("gw", "00ff", 1, [Block("plc", [1_000_000], names)]))
    assert columns(payload, Book(), "stamp_us", "polls") == [[1_790_000_000_000_000], [41]]
