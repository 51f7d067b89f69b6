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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from protocols.uplink.batch import Block
from protocols.uplink.columns import (
    Base,
    base_of,
    pack_columns,
    pack_runs,
    pack_types,
    pattern_mode,
    unpack_columns,
    unpack_tags,
)
from protocols.uplink.frames import FrameError, pack, unpack
from protocols.uplink.status import TIMESTAMP_MS_MAX
from protocols.uplink.streams import XOR, ColumnError, Reader, Writer, read_varints, signed, unzigzag, varints, zigzag
from protocols.values import ValueType

VERSION = 1
REF_BYTES = 6
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
    tags: tuple[tuple[str, ValueType, str], ...]
    bases: tuple[Base, ...]

    def positions(self) -> dict[str, int]:
        """Tag name → position."""
        return {name: at for at, (name, _, _) in enumerate(self.tags)}


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

    `least`: tag → at least so many decimals, or XOR.
    """
    wanted = least or {}
    found = {column.name: base_of(column.type, column.values, wanted.get(column.name, 0)) for column in block.columns}
    bases = tuple(found.get(name, Base()) for name, _, _ in tags)
    time_us = block.times_us[-1] if block.times_us else 0
    return Definition(gateway, epoch, block.device, group, time_us, tuple(tags), bases)


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
            varints(zigzag(signed(base.first)) for base in definition.bases),
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
    """A packed block, and for each number column present the exponent (or XOR) that it took: (position, exponent)."""

    packed: list[Any]
    exponents: list[tuple[int, int]]


def pack_referring(block: Block, reference: bytes, definition: Definition) -> Referring:
    """[ref, streams, rows, modes, extras, exceptions, positions], trailing empty parts left out. See docs/wire.md."""
    positions = definition.positions()
    present = [positions[column.name] for column in block.columns]
    bases = [definition.bases[at] for at in present]
    writer = Writer()
    times_us = block.times_us
    exponent, scale = next((e, s) for e, s in _TIME_SCALES if all(time % s == 0 for time in times_us))
    writer.integers([time // scale for time in times_us], exponent, definition.time_us // scale)
    extras, exceptions = pack_columns(writer, block.columns, bases)
    streams = writer.packed()
    while not streams[-1] and len(streams) > 1:
        streams.pop()
    modes = bytes(writer.modes)
    parts: list[Any] = [
        reference,
        streams,
        None if len(times_us) == 1 else len(times_us),
        None if modes == expected_modes((column.type for column in block.columns), bases) else modes,
        extras,
        exceptions,
        None if present == list(range(len(definition.tags))) else _steps(present),
    ]
    if parts[-1] is None:  # but [] stays: it says that no column is present
        parts.pop()
        while parts[-1] in (None, [], {}):
            parts.pop()
    numbers = [at for at, column in zip(present, block.columns, strict=True) if _is_number(column.type)]
    return Referring(parts, list(zip(numbers, (mode & 0x0F for mode in modes[1:]), strict=True)))


def unpack_referring(packed: Any, definition: Definition, readings_left: int) -> Block:
    """The block in `packed`, whose reference was found to be `definition`. Raises ColumnError."""
    if not isinstance(packed, list) or not 2 <= len(packed) <= 7:
        raise ColumnError("a block is not an array of two to seven")
    streams, rows, modes, extras, exceptions, steps = [*packed, None, None, None, None, None][1:7]
    present = range(len(definition.tags)) if steps is None else _positions(steps, len(definition.tags))
    tags, bases = [definition.tags[at] for at in present], [definition.bases[at] for at in present]
    if modes is None:
        modes = expected_modes((kind for _, kind, _ in tags), bases)
    if not isinstance(modes, bytes):
        raise ColumnError("a block's modes are not bytes")
    if not isinstance(streams, list) or not 1 <= len(streams) <= 5:
        raise ColumnError("a block's streams are not one to five byte strings")
    reader = Reader(modes, [*streams, *[b""] * (5 - len(streams))])
    rows = 1 if rows is None else rows
    extras = [] if extras is None else extras
    exceptions = {} if exceptions is None else exceptions
    found = unpack_columns(reader, rows, tags, bases, extras, exceptions, readings_left, definition.time_us)
    return Block(definition.device, *found)


def expected_modes(kinds: Iterable[ValueType], bases: Iterable[Base]) -> bytes:
    """What the modes are when times are milliseconds, every column has its base's exponent, and no differences."""
    modes = [mode for kind, base in zip(kinds, bases, strict=True) if (mode := expected_mode(kind, base)) is not None]
    return bytes([3, *modes])


def expected_mode(kind: ValueType, base: Base) -> int | None:
    """None for a column that has no numbers."""
    if not _is_number(kind):
        return None
    return pattern_mode(kind) if base.exponent == XOR else base.exponent


def _is_number(kind: ValueType) -> bool:
    return kind not in (ValueType.BOOL, ValueType.STRING)


def _steps(positions: Sequence[int]) -> list[int]:
    return [b - a for a, b in zip([0, *positions], positions, strict=False)]


def _positions(steps: Any, count: int) -> list[int]:
    if not isinstance(steps, list) or not all(type(step) is int for step in steps):
        raise ColumnError("a block's columns are not an array of steps")
    positions, at = [], 0
    for number, step in enumerate(steps):
        at += step
        if (step <= 0 and number) or not 0 <= at < count:
            raise ColumnError("a block's columns are not ascending within its definition")
        positions.append(at)
    return positions
