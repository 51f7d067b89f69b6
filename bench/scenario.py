"""What every contestant reads: 1,000 tags per device, 500 float32 and 500 int16 in 1,500 registers.

The registers are laid out twice in the plant, so that each contestant can read them in as few requests as it can:
*mixed*, where each run of 125 registers holds 41 or 42 floats and then integers, so that twelve requests do; and
*split*, 500 floats and then 500 integers, for programs that take one type per range. Beside them lie the info
registers: when the answer was written, and which poll it answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

FLOATS = INTEGERS = 500
TAGS = FLOATS + INTEGERS
REGISTERS = 2 * FLOATS + INTEGERS
BLOCK = 125  # registers; the most that one request may ask for
MIXED_AT = 0
INFO_AT = 1500
STAMP_AT, STAMP_REGISTERS = INFO_AT, 4  # uint64: µs since 1970 when the answer was written
COUNT_AT, COUNT_REGISTERS = INFO_AT + 4, 2  # uint32: how often the info registers have been read, this time included
INFO_REGISTERS = STAMP_REGISTERS + COUNT_REGISTERS
SPLIT_AT = 2000

Type = Literal["float32", "int16", "uint64", "uint32"]


@dataclass(frozen=True, slots=True)
class Tag:
    """`address`: holding register, from 0."""

    name: str
    address: int
    type: Type


@dataclass(frozen=True, slots=True)
class Load:
    """`devices` × 1,000 tags, each device read every `period_s`; `info`: the info registers are read, too.

    `batch_s`: how long readings are collected for one message, where a contestant can be told; 0: one scan per message.
    `tags_each`: fewer than 1,000 tags of a device; `groups`: poll groups of each device, all over the same registers.
    """

    devices: int = 1
    period_s: float = 1.0
    info: bool = False
    batch_s: float = 1.0
    tags_each: int = TAGS
    groups: int = 1

    @property
    def tags(self) -> int:
        """Tags of one scan: of one poll group of a device."""
        return self.tags_each + (2 if self.info else 0)

    @property
    def rate(self) -> float:
        """Samples per second, without the info registers."""
        return self.devices * self.groups * self.tags_each / self.period_s

    def chosen(self) -> list[Tag]:
        """The tags of a scan, info registers left out: from both ends, so that the plant sees whole scans."""
        tags = mixed()
        return tags if self.tags_each == TAGS else tags[: self.tags_each // 2] + tags[-(self.tags_each // 2) :]

    def __str__(self) -> str:
        groups = "" if self.groups == 1 else f"{self.groups} groups × "
        return f"{self.devices} × {groups}{self.tags_each:,} tags every {self.period_s:g} s"


def mixed() -> list[Tag]:
    """Twelve blocks of 125 registers: 42 floats in each of the first eight and 41 in the others, then integers."""
    return list(_mixed())


def _mixed() -> Iterator[Tag]:
    address, floats, integers = MIXED_AT, 0, 0
    for block in range(REGISTERS // BLOCK):
        in_block = 42 if block < 8 else 41
        for _ in range(in_block):
            yield Tag(f"f{floats}", address, "float32")
            floats, address = floats + 1, address + 2
        for _ in range(BLOCK - 2 * in_block):
            yield Tag(f"i{integers}", address, "int16")
            integers, address = integers + 1, address + 1


def info() -> list[Tag]:
    return [Tag("stamp_us", STAMP_AT, "uint64"), Tag("polls", COUNT_AT, "uint32")]
