"""Scans in, drafts of batches out: rows become columns. Pure: no clock, no disk.

Collects per machine, priority and mark of the clock (agent/vouching.py), and in there per poll group. A draft is
closed when it might pass `bytes_max` by a safe estimate (each number and text in full; each name once, where the
encoder repeats names), so that no batch is ever larger than what brokers take, however badly it compresses.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from agent.blocks import REASON_MAX
from agent.definitions import Encoder, GroupScans
from agent.outbox.contract import Draft, Encoded, Lane
from protocols.field.contract import Group, Scan
from protocols.uplink.columns import TEXT_MAX
from protocols.values import ValueType

BATCH_BYTES_MAX = 100_000
_GROUP_BYTES = 256  # a block's own parts, and the message's frame
_NAME_BYTES = 8  # a column's parts beside name and unit
_SCAN_BYTES = 32  # its time
_READING_BYTES = 9
_ROW_BYTES = 4  # a reading's row, where the scan does not hold the whole group
_FAULT_BYTES = 24  # what a reading's quality, absence and reason cost beside the reason's text


class Made(NamedTuple):
    """A batch's final bytes, and whose they are."""

    lane: Lane
    seq: int
    encoded: Encoded


class _About(NamedTuple):
    """Of a group: how many blocks it makes in a batch, and what all its names cost where they are repeated there."""

    group: Group
    blocks: int
    name_bytes: int
    has_texts: bool


_Key = tuple[str, int, bytes]
"""Machine, priority, mark."""


@dataclass
class _Open:
    """The batch of one machine, priority and mark that is being filled.

    `scans`, `named`: by group, by identity, because to hash one is to hash all its tags.
    `named`: the tags of each group whose names it pays for already, by position; None: all of them.
    """

    scans: dict[int, list[Scan]] = field(default_factory=dict)
    named: dict[int, set[int] | None] = field(default_factory=dict)
    bytes: int = 0
    readings: int = 0

    def cost(self, scan: Scan, about: _About) -> int:
        """By how many bytes it grows with this scan, at most."""
        group, named = scan.group, self.named.get(id(scan.group), set())
        size = _scan_bytes(scan, about.has_texts)
        if id(group) not in self.named:
            size += about.blocks * _GROUP_BYTES
        if named is None or not about.name_bytes:
            return size
        if scan.indexes is None:
            return size + about.name_bytes
        return size + _name_bytes(group, set(scan.indexes) - named)

    def take(self, scan: Scan, cost: int, about: _About) -> None:
        """Put it in."""
        self.scans.setdefault(id(scan.group), []).append(scan)
        named = self.named.setdefault(id(scan.group), set())
        if scan.indexes is None or not about.name_bytes:
            self.named[id(scan.group)] = None
        elif named is not None:
            named.update(scan.indexes)
        self.bytes += cost
        self.readings += len(scan)


class Filled:
    """A draft with how many readings it holds, and about how much memory. `mark`: stands before its message.

    `made`: what was encoded last, with its lane and number; None before that. Once the outbox has taken the draft,
    these are the bytes that it holds.
    """

    __slots__ = ("_encoder", "_groups", "_machine", "bytes", "draft", "made", "mark", "readings")

    def __init__(
        self, machine: str, priority: int, mark: bytes, groups: Sequence[GroupScans], encoder: Encoder, size: int
    ) -> None:
        self._machine = machine
        self.mark = mark
        self._groups = groups
        self._encoder = encoder
        self.bytes = size
        self.readings = sum(len(scan) for scans in groups for scan in scans)
        self.made: Made | None = None
        self.draft = Draft(machine, self._encode, self.readings, priority)

    def _encode(self, epoch: str, seq: int) -> Encoded:
        encoded = self._encoder.encode(epoch, seq, self._groups)
        if self.mark:
            encoded = replace(encoded, payload=self.mark + encoded.payload)
        self.made = Made(Lane(self._machine, epoch), seq, encoded)
        return encoded


class Batcher:
    """`encoder` makes the messages. `machines`: device → machine."""

    def __init__(self, encoder: Encoder, machines: dict[str, str], bytes_max: int = BATCH_BYTES_MAX) -> None:
        self._encoder = encoder
        self._machines = machines
        self._bytes_max = bytes_max
        self._open: dict[_Key, _Open] = {}
        self._filled: list[Filled] = []
        self._known: dict[int, _About] = {}  # by identity

    def _about(self, group: Group) -> _About:
        about = self._known.get(id(group))
        if about is None:
            names = _name_bytes(group, range(len(group.tags))) if self._encoder.repeats_names else 0
            has_texts = any(tag.value_type is ValueType.STRING for tag in group.tags)
            about = self._known[id(group)] = _About(group, self._encoder.blocks(group), names, has_texts)
        return about

    @property
    def full(self) -> bool:
        """A batch is complete: drain soon."""
        return bool(self._filled)

    def add(self, scan: Scan, mark: bytes = b"") -> None:
        """Take one scan in, whose times this mark is about. One that is larger than a batch is split."""
        if not len(scan):
            return
        key = self._machines[scan.group.device], scan.group.priority, mark
        batch = self._open.get(key)
        if batch is None:
            batch = self._open[key] = _Open()
        about = self._about(scan.group)
        cost = batch.cost(scan, about)
        if batch.bytes + cost <= self._bytes_max:
            batch.take(scan, cost, about)
        elif batch.readings:
            self._close(key)
            self.add(scan, mark)
        elif len(scan) > 1:
            evenly = cost * 10 // (self._bytes_max * 9) + 1  # readings differ in size: aim at nine tenths
            for piece in _pieces(scan, min(len(scan), evenly)):
                self.add(piece, mark)
        else:
            batch.take(scan, cost, about)

    def _close(self, key: _Key) -> None:
        batch = self._open.pop(key)
        self._filled.append(Filled(*key, list(batch.scans.values()), self._encoder, batch.bytes))

    def drain(self) -> list[Filled]:
        """All that was taken in so far, in order per machine and priority."""
        for key in list(self._open):
            self._close(key)
        filled, self._filled = self._filled, []
        return filled


def _indexes(scan: Scan) -> Sequence[int]:
    return range(len(scan.values)) if scan.indexes is None else scan.indexes


def _scan_bytes(scan: Scan, has_texts: bool) -> int:
    """A text that a driver gives for a tag of another type is not sent."""
    each = _READING_BYTES if scan.indexes is None else _READING_BYTES + _ROW_BYTES
    texts = sum(_text_bytes(value, TEXT_MAX) for value in scan.values if type(value) is str) if has_texts else 0
    reasons = sum(_text_bytes(reason, REASON_MAX) for reason in scan.reasons.values())
    faults = 0 if scan.quality is None else sum(1 for code in scan.quality if code)
    return _SCAN_BYTES + len(scan) * each + texts + reasons + faults * _FAULT_BYTES


def _name_bytes(group: Group, positions: Iterable[int]) -> int:
    tags = (group.tags[at] for at in positions)
    return sum(_NAME_BYTES + _text_bytes(tag.name, TEXT_MAX) + _text_bytes(tag.unit, TEXT_MAX) for tag in tags)


def _text_bytes(text: str, length_max: int) -> int:
    return min(len(text), length_max) * (1 if text.isascii() else 4)


def _pieces(scan: Scan, count: int) -> list[Scan]:
    indexes, cuts = _indexes(scan), [len(scan) * at // count for at in range(count + 1)]
    pieces = []
    for cut in itertools.starmap(slice, itertools.pairwise(cuts)):
        mine = set(indexes[cut])
        pieces.append(
            replace(
                scan,
                values=scan.values[cut],
                indexes=indexes[cut],
                quality=None if scan.quality is None else scan.quality[cut],
                reasons={at: reason for at, reason in scan.reasons.items() if at in mine},
            )
        )
    return pieces
