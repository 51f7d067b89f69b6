"""The gateway's book of definitions: which one each poll group's batches refer to at present. Pure.

A group's definition is made with its first batch. It is made anew when the batches since then have grown to RENEW_RATIO
times its own size, which keeps the cost of definitions below two per cent: the values that it expects then follow the
plant. In between it is amended, with growing patience, while batches need more decimals than it expects; what that
costs puts off the next one made anew. A wide group has a definition for each of its parts (agent/parts.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from agent.blocks import block
from agent.outbox.contract import Encoded, GroupDefinition
from agent.parts import Part, cut, parts
from protocols.field.contract import Group, Scan
from protocols.uplink import definition as definitions
from protocols.uplink.batch import Batch
from protocols.uplink.definition import Definition, Referring, pack_referring
from protocols.uplink.envelope import REFERRING, encode, encode_referring
from protocols.uplink.frames import FrameError, unpack
from protocols.uplink.mark import read
from protocols.uplink.rows import RowPacker
from protocols.uplink.streams import XOR

RENEW_RATIO = 64
PATIENCE = 4

GroupScans = Sequence[Scan]
"""At least one scan, all of one poll group."""


class Encoder(Protocol):
    """Makes a message of the scans of one batch. `repeats_names`: names and units stand in each."""

    repeats_names: bool

    def blocks(self, group: Group) -> int:
        """How many blocks a batch has for this group, at most."""

    def encode(self, epoch: str, seq: int, groups: Sequence[GroupScans]) -> Encoded: ...


@dataclass
class _Entry:
    """`surprises`: batches that needed more decimals than expected; at `patience` of them it is amended.

    `bytes`, `told`: of batches, and of definitions, since one was made anew.
    `used`: position → the most decimals (XOR above all) that a batch needed since this definition was made.
    """

    group: Group
    definition: Definition
    stored: GroupDefinition
    packer: RowPacker
    patience: int
    told: int
    bytes: int = 0
    surprises: int = 0
    used: dict[int, int] = field(default_factory=dict)

    def least(self) -> dict[str, int]:
        """What the next one should expect: as many decimals as were ever needed, patterns where none sufficed."""
        tags = zip(self.definition.tags, self.definition.bases, strict=True)
        return {name: max(base.exponent, self.used.get(at, 0)) for at, ((name, _, _), base) in enumerate(tags)}

    def least_anew(self) -> dict[str, int]:
        """The same, but a tag that is kept as patterns gets another chance: nothing shows whether decimals would do.

        Not more often: of noise one value in ten looks like decimals, and the next one does not.
        """
        tags = zip(self.definition.tags, self.definition.bases, strict=True)
        patterns = {name: 0 for (name, _, _), base in tags if base.exponent == XOR}
        return self.least() | patterns


class Book:
    """Encodes batches in the referring form. Calling twice for the same number is harmless.

    `groups`: all that there are, so that no part of a wide one gets another's name.
    """

    repeats_names = False

    def __init__(self, gateway: str, groups: Iterable[Group] = ()) -> None:
        self._gateway = gateway
        self._entries: dict[tuple[str, str], _Entry] = {}
        self._taken: dict[str, set[str]] = {}  # device → names of groups and their parts
        self._parts: dict[int, tuple[Group, list[Part]]] = {}  # by identity: to hash a group is to hash all its tags
        for group in groups:
            self._taken.setdefault(group.device, set()).add(group.name)

    def encode(self, epoch: str, seq: int, groups: Sequence[GroupScans]) -> Encoded:
        """The message, and every definition that it refers to."""
        groups = [piece for scans in groups for piece in self._pieces(scans)]
        entries = [self._entry(epoch, scans) for scans in groups]
        packed = [self._pack(entry, scans) for entry, scans in zip(entries, groups, strict=True)]
        payload = encode_referring(seq, packed)
        for entry in entries:
            entry.bytes += len(payload) // len(entries)
        return Encoded(payload, tuple(entry.stored for entry in entries))

    def blocks(self, group: Group) -> int:
        """One for each part."""
        return len(self._parts_of(group))

    def _parts_of(self, group: Group) -> list[Part]:
        if id(group) not in self._parts:
            self._parts[id(group)] = group, parts(group, self._taken.setdefault(group.device, {group.name}))
        return self._parts[id(group)][1]

    def _pieces(self, scans: GroupScans) -> list[GroupScans]:
        """By the parts of their group."""
        found = self._parts_of(scans[0].group)
        return [scans] if len(found) == 1 else [piece for part in found if (piece := cut(part, scans))]

    def _pack(self, entry: _Entry, scans: GroupScans) -> Referring:
        referring = None
        if all(scan.indexes is None and scan.quality is None for scan in scans):
            referring = entry.packer.pack([scan.time_us for scan in scans], [scan.values for scan in scans])
        if referring is None:
            referring = pack_referring(block(entry.group, scans), entry.stored.ref, entry.definition)
        surprised = False
        for at, exponent in referring.exponents:
            surprised |= exponent > entry.definition.bases[at].exponent
            entry.used[at] = max(exponent, entry.used.get(at, 0))
        entry.surprises += surprised
        return referring

    def _entry(self, epoch: str, scans: GroupScans) -> _Entry:
        group = scans[0].group
        key = (group.device, group.name)
        entry = self._entries.get(key)
        if entry is None or entry.group is not group or entry.definition.epoch != epoch:
            entry = self._entries[key] = self._define(epoch, scans, {}, PATIENCE)
        elif entry.surprises >= entry.patience:
            amended = self._define(epoch, scans, entry.least(), 2 * entry.patience)
            amended.bytes, amended.told = entry.bytes, entry.told + amended.told
            entry = self._entries[key] = amended
        elif entry.bytes >= RENEW_RATIO * entry.told:
            entry = self._entries[key] = self._define(epoch, scans, entry.least_anew(), PATIENCE)
        return entry

    def _define(self, epoch: str, scans: GroupScans, least: dict[str, int], patience: int) -> _Entry:
        group = scans[0].group
        tags = [(tag.name, tag.value_type, tag.unit) for tag in group.tags]
        made = definitions.define(self._gateway, epoch, group.name, tags, block(group, scans), least)
        message = definitions.encode(made)
        stored = GroupDefinition(definitions.ref(message), group.device, group.name, message)
        return _Entry(group, made, stored, RowPacker(stored.ref, made), patience, len(message))


def references(payload: bytes) -> list[bytes]:
    """The definitions that a message of ours refers to; none where that cannot be told: the receiver judges it."""
    try:
        value = unpack(read(payload).message)
    except FrameError:
        return []
    if not isinstance(value, list) or len(value) != 3 or value[0] != REFERRING:
        return []
    return [block[0] for block in value[2]]


class SelfContained:
    """Encodes batches so that each is decodable alone, for receivers that are not ours."""

    repeats_names = True

    def __init__(self, gateway: str) -> None:
        self._gateway = gateway

    def blocks(self, group: Group) -> int:
        """One."""
        return 1

    def encode(self, epoch: str, seq: int, groups: Sequence[GroupScans]) -> Encoded:
        """The message; it refers to nothing."""
        return Encoded(encode(Batch(self._gateway, epoch, seq, [block(scans[0].group, scans) for scans in groups])))
