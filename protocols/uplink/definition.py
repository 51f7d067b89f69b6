"""Definitions: what a gateway says once of a poll group, so that its telemetry need not repeat it. Pure.

A definition names gateway, epoch, device, group and tags, and for each number column what it is expected to be near: a
decimal exponent and a first value. Telemetry in the referring form holds the definition's reference (the BLAKE2b hash
of its message, 6 bytes long) and only what differs. It is published retained, before the first batch that refers to it,
and kept by the receiver, because a batch may come late; a receiver that lacks it asks for it in its confirm.

Message, MessagePack in a zstd frame:
[1, gateway, epoch, device, group, time, names, types, units, exponents, firsts], see docs/wire.md.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from operator import itemgetter
from typing import Any, Protocol

from protocols.uplink import lanes
from protocols.uplink.batch import Block, Column
from protocols.uplink.blocks import pack_columns, pack_types, unpack_rows, unpack_tags
from protocols.uplink.columns import Base, base_of, pack_runs
from protocols.uplink.flat import FLOATS, TEXTS, Layout, Tag
from protocols.uplink.frames import FrameError, pack, unpack
from protocols.uplink.status import TIMESTAMP_MS_MAX
from protocols.uplink.streams import XOR, ColumnError, read_varints, signed, unzigzag, varints, zigzag
from protocols.values import ValueType

VERSION = 1
REF_BYTES = 6
_LAYOUTS_MAX = 16
_ROWS_ENOUGH = 8
_EXPONENTS = bytes(mode & 0x0F for mode in range(256))
_NOT_ZERO = re.compile(rb"[^\x00]", re.DOTALL)
_TIME_SCALES = ((6, 1_000_000), (3, 1000), (0, 1))


class DefinitionError(ValueError):
    """Not a definition. The text says why in one sentence."""


@dataclass(frozen=True, slots=True)
class Definition:
    """`tags`: (name, type, unit); `bases`: one per tag. `time_us`: near which the first batches lie."""

    gateway: str
    epoch: str
    device: str
    group: str
    time_us: int
    tags: tuple[Tag, ...]
    bases: tuple[Base, ...]
    _layouts: dict[bytes, Layout] = field(default_factory=dict, init=False, repr=False, compare=False)
    _places: dict[str, int] = field(default_factory=dict, init=False, repr=False, compare=False)

    def positions(self) -> Mapping[str, int]:
        """Tag name → position."""
        if not self._places:
            self._places.update((name, at) for at, (name, _, _) in enumerate(self.tags))
        return self._places

    def layout(self, reference: bytes, steps: Any = None) -> Layout:
        """That of blocks with these of its columns, as on the wire; the same object again. Raises ColumnError."""
        key, positions = reference, None
        if steps is not None:
            positions = _positions(steps, len(self.tags))
            key += varints([len(steps), *steps])  # no column at all is another key than all of them
        found = self._layouts.get(key)
        if found is None:
            found = self.part(key, range(len(self.tags)) if positions is None else positions)
            if len(self._layouts) >= _LAYOUTS_MAX:
                self._layouts.clear()
            self._layouts[key] = found
        return found

    def part(self, key: bytes, positions: Sequence[int]) -> Layout:
        """That of blocks with these of its columns."""
        tags, bases = [self.tags[at] for at in positions], [self.bases[at] for at in positions]
        return Layout(
            key, self.device, tags, [base.exponent for base in bases], [base.first for base in bases], self.time_us
        )


def ref(message: bytes) -> bytes:
    """The reference of a definition message, as it is or was published."""
    return hashlib.blake2b(message, digest_size=REF_BYTES).digest()


def define(
    gateway: str,
    epoch: str,
    group: str,
    tags: Sequence[tuple[str, ValueType, str]],
    block: Block,
    least: Mapping[str, int] | None = None,
) -> Definition:
    """A definition of `tags`, with `block`'s values to be near to; tags that it lacks get no expectation.

    `least`: tag → so many decimals as were needed so far, or XOR; of a tag with 0 nothing is known, but where any is
    given, a few of the block's rows are enough to go by.
    """
    wanted = least or {}
    undecided = [column for column in block.columns if column.type in FLOATS and not wanted.get(column.name)]
    if least:
        undecided = _some_rows(block, undecided)
    assembly, _, _ = pack_columns(undecided, [Base()] * len(undecided))
    decided = {column.name: mode & 0x0F for column, mode in zip(undecided, assembly.modes[1:], strict=True)}
    found = {
        column.name: base_of(column.type, column.values, decided.get(column.name, wanted.get(column.name, 0)))
        for column in block.columns
        if column.type not in TEXTS
    }
    bases = tuple(found.get(name, Base()) for name, _, _ in tags)
    time_us = block.times_us[-1] if block.times_us else 0
    return Definition(gateway, epoch, block.device, group, time_us, tuple(tags), bases)


def _some_rows(block: Block, columns: list[Column]) -> list[Column]:
    """Of many whole rows the first, the last, and some between."""
    last = len(block.times_us) - 1
    if last < 2 * _ROWS_ENOUGH or any(column.rows is not None for column in columns):
        return columns
    pick = itemgetter(*(last * at // (_ROWS_ENOUGH - 1) for at in range(_ROWS_ENOUGH)))
    return [Column(column.name, column.type, pick(column.values)) for column in columns]


def encode(definition: Definition) -> bytes:
    """The definition's message."""
    return pack(
        [
            VERSION,
            definition.gateway,
            bytes.fromhex(definition.epoch),
            definition.device,
            definition.group,
            definition.time_us,
            [name for name, _, _ in definition.tags],
            pack_types(value_type for _, value_type, _ in definition.tags),
            pack_runs(unit for _, _, unit in definition.tags),
            bytes(base.exponent for base in definition.bases),
            varints([zigzag(signed(base.first)) for base in definition.bases]),
        ]
    )


def decode(message: bytes) -> Definition:
    """The definition in a message. Raises DefinitionError."""
    try:
        value = unpack(message)
        if not isinstance(value, list) or len(value) != 11 or value[0] != VERSION or type(value[0]) is not int:
            raise DefinitionError(f"a definition is an array of 11 parts that begins with {VERSION}")
        _, gateway, epoch, device, group, time_us, names, types, units, exponents, firsts = value
        if not all(
            isinstance(text, str) and len(text) <= 64 and text.isprintable() for text in (gateway, device, group)
        ):
            raise DefinitionError("a definition's gateway, device or group is not a text of at most 64 characters")
        if not isinstance(epoch, bytes) or not 0 < len(epoch) <= 32:
            raise DefinitionError("a definition's epoch is not a byte string of 1 to 32 bytes")
        if type(time_us) is not int or not 0 <= time_us <= TIMESTAMP_MS_MAX * 1000:
            raise DefinitionError("a definition's time lies outside the years 1970 to 9999")
        tags = tuple(unpack_tags(names, types, units))
        bases = _bases(exponents, firsts, [kind for _, kind, _ in tags])
        return Definition(gateway, epoch.hex(), device, group, time_us, tags, bases)
    except (FrameError, ColumnError) as error:
        raise DefinitionError(str(error)) from None


def _bases(exponents: Any, firsts: Any, kinds: Sequence[ValueType]) -> tuple[Base, ...]:
    if not isinstance(exponents, bytes) or len(exponents) != len(kinds) or not isinstance(firsts, bytes):
        raise DefinitionError("a definition's exponents or first values do not match its tags")
    numbers = [unzigzag(number) for number in read_varints(firsts)]
    if len(numbers) != len(kinds):
        raise DefinitionError("a definition's first values do not match its tags")
    bases = tuple(
        Base(exponent, number & ((1 << 64) - 1) if exponent == XOR else number)
        for exponent, number in zip(exponents, numbers, strict=True)
    )
    if not all(map(_fits, bases, kinds)):
        raise DefinitionError("a definition's exponent or first value does not fit its tag's type")
    return bases


def _fits(base: Base, kind: ValueType) -> bool:
    if kind is ValueType.FLOAT32 and base.exponent == XOR:
        return base.first >> 32 == 0
    return base.exponent <= (XOR if kind in (ValueType.FLOAT32, ValueType.FLOAT64) else 0)


# --- blocks that refer to a definition --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Referring:
    """A packed block, and for each number column that took another exponent than its base's: (position, exponent)."""

    packed: list[Any]
    exponents: list[tuple[int, int]]


def pack_referring(block: Block, reference: bytes, definition: Definition) -> Referring:
    """A block of any kind, whose columns stand in the definition's order. See docs/wire.md."""
    places = definition.positions()
    present = [places[column.name] for column in block.columns]
    whole = len(present) == len(places)
    layout = definition.layout(reference) if whole else definition.part(reference, present)
    assembly, extras, exceptions = pack_columns(block.columns, [definition.bases[at] for at in present])
    return put_together(layout, None if whole else present, assembly, block.times_us, extras, exceptions)


class Sequences(Protocol):
    """The numbers of one block, see protocols/uplink/bulk.py. `modes`: one byte for each sequence."""

    modes: Any

    def add_times(self, times: Sequence[int], exponent: int, base: int) -> None: ...

    def packed(self) -> list[bytes]: ...


def put_together(
    layout: Layout,
    present: Sequence[int] | None,
    assembly: Sequences,
    times_us: Sequence[int],
    extras: list[Any],
    exceptions: dict[int, list[Any]],
) -> Referring:
    """[ref, streams, rows, modes, extras, exceptions, positions], trailing empty parts left out. See docs/wire.md.

    `assembly`: all numbers but the times. `present`: positions of the columns, None: all.
    """
    exponent, scale = next((e, s) for e, s in _TIME_SCALES if not any(time % s for time in times_us))
    assembly.add_times([time // scale for time in times_us], exponent, layout.time_us // scale)
    streams = assembly.packed()
    while not streams[-1] and len(streams) > 1:
        streams.pop()
    modes, expected = bytes(assembly.modes), layout.expected
    parts: list[Any] = [
        layout.key[:REF_BYTES],
        streams,
        None if len(times_us) == 1 else len(times_us),
        None if modes == expected else modes,
        extras,
        exceptions,
        None if present is None else _steps(present),
    ]
    if parts[-1] is None:  # but [] stays: it says that no column is present
        parts.pop()
        while parts[-1] in (None, [], {}):
            parts.pop()
    exponents = modes.translate(_EXPONENTS)
    differences = lanes.xored(exponents[1:], expected[1:].translate(_EXPONENTS))
    places = [found.start() for found in _NOT_ZERO.finditer(differences)]
    positions = [layout.numbers[place] if present is None else present[layout.numbers[place]] for place in places]
    return Referring(parts, [(at, exponents[1 + place]) for at, place in zip(positions, places, strict=True)])


def unpack_referring(packed: Any, definition: Definition, readings_left: int) -> Block:
    """The block in `packed`, whose reference was found to be `definition`. Raises ColumnError."""
    if not isinstance(packed, list) or not 2 <= len(packed) <= 7:
        raise ColumnError("a block is not an array of two to seven")
    streams, rows, modes, extras, exceptions, steps = [*packed, None, None, None, None, None][1:7]
    layout = definition.layout(packed[0], steps)
    if modes is None:
        modes = layout.expected
    if not isinstance(modes, bytes):
        raise ColumnError("a block's modes are not bytes")
    if not isinstance(streams, list) or not 1 <= len(streams) <= 5:
        raise ColumnError("a block's streams are not one to five byte strings")
    return unpack_rows(
        layout,
        1 if rows is None else rows,
        modes,
        [*streams, *[b""] * (5 - len(streams))],
        [] if extras is None else extras,
        {} if exceptions is None else exceptions,
        readings_left,
    )


def _steps(positions: Sequence[int]) -> list[int]:
    return [b - a for a, b in zip([0, *positions], positions, strict=False)]


def _positions(steps: Any, count: int) -> list[int]:
    if not isinstance(steps, list) or not set(map(type, steps)) <= {int}:
        raise ColumnError("a block's columns are not an array of steps")
    positions = list(accumulate(steps))
    if steps and (steps[0] < 0 or min(steps[1:], default=1) < 1 or positions[-1] >= count):
        raise ColumnError("a block's columns are not ascending within its definition")
    return positions
