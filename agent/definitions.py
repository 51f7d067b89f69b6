"""The gateway's book of definitions: which one each poll group's batches refer to at present. Pure.

A group's definition is made with its first batch. It is renewed when the batches since then have grown to RENEW_RATIO
times its own size, which keeps the cost of definitions below two per cent: the values that it expects then follow the
plant. The first renewal comes sooner, because by then it is known how many decimals each tag needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from agent.outbox.contract import Encoded, GroupDefinition
from protocols.field.contract import Group
from protocols.uplink import definition as definitions
from protocols.uplink.batch import Batch, Block
from protocols.uplink.columns import Base
from protocols.uplink.definition import Definition
from protocols.uplink.envelope import encode, encode_referring
from protocols.uplink.streams import XOR

RENEW_RATIO = 64
LEARN_RATIO = 8

GroupBlock = tuple[Group, Block]


class Encoder(Protocol):
    """Makes a message of the blocks of one batch."""

    def encode(self, epoch: str, seq: int, blocks: Sequence[GroupBlock]) -> Encoded: ...


@dataclass
class _Entry:
    """`used`: position → the most decimals that a batch needed since this definition was made."""

    group: Group
    definition: Definition
    stored: GroupDefinition
    renew_bytes: int
    bytes: int = 0
    used: dict[int, int] = field(default_factory=dict)


class Book:
    """Encodes batches in the referring form. Calling twice for the same number is harmless."""

    def __init__(self, gateway: str) -> None:
        self._gateway = gateway
        self._entries: dict[tuple[str, str], _Entry] = {}

    def encode(self, epoch: str, seq: int, blocks: Sequence[GroupBlock]) -> Encoded:
        """The message, and every definition that it refers to."""
        entries = [self._entry(epoch, group, block) for group, block in blocks]
        packed = []
        for entry, (_, block) in zip(entries, blocks, strict=True):
            referring = definitions.pack_referring(block, entry.stored.ref, entry.definition)
            for at, exponent in referring.exponents:
                if exponent < XOR:
                    entry.used[at] = max(exponent, entry.used.get(at, 0))
            packed.append(referring)
        payload = encode_referring(seq, packed)
        for entry in entries:
            entry.bytes += len(payload) // len(entries)
        return Encoded(payload, tuple(entry.stored for entry in entries))

    def _entry(self, epoch: str, group: Group, block: Block) -> _Entry:
        key = (group.device, group.name)
        entry = self._entries.get(key)
        fits = entry is not None and entry.group is group and entry.definition.epoch == epoch
        if entry is None or not fits:
            entry = self._entries[key] = self._define(epoch, group, block, {}, LEARN_RATIO)
        elif entry.bytes >= entry.renew_bytes:
            entry = self._entries[key] = self._define(epoch, group, block, entry.used, RENEW_RATIO)
        return entry

    def _define(self, epoch: str, group: Group, block: Block, used: dict[int, int], ratio: int) -> _Entry:
        tags = [(tag.name, tag.value_type, tag.unit) for tag in group.tags]
        made = definitions.define(self._gateway, epoch, group.name, tags, block)
        made = replace(made, bases=tuple(_raised(base, used.get(at, 0)) for at, base in enumerate(made.bases)))
        message = definitions.encode(made)
        stored = GroupDefinition(definitions.ref(message), group.device, group.name, message)
        return _Entry(group, made, stored, ratio * len(message))


def _raised(base: Base, exponent: int) -> Base:
    """With at least so many decimals."""
    if base.exponent >= exponent:
        return base
    first = base.first * 10 ** (exponent - base.exponent)
    return Base(exponent, first) if abs(first) < 1 << 53 else base


class SelfContained:
    """Encodes batches so that each is decodable alone, for receivers that are not ours."""

    def __init__(self, gateway: str) -> None:
        self._gateway = gateway

    def encode(self, epoch: str, seq: int, blocks: Sequence[GroupBlock]) -> Encoded:
        """The message; it refers to nothing."""
        return Encoded(encode(Batch(self._gateway, epoch, seq, [block for _, block in blocks])))
