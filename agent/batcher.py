"""Scans in, drafts of batches out: rows become columns. Pure: no clock, no disk.

Collects per machine and poll group. A draft is closed when it might pass `bytes_max` by a safe estimate (each number
and text in full, each name once), so that no batch is ever larger than what brokers take, however badly it compresses.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from agent.blocks import REASON_MAX
from agent.definitions import Encoder
from agent.outbox.contract import Draft, Encoded
from protocols.field.contract import Group, Scan
from protocols.uplink.columns import TEXT_MAX

BATCH_BYTES_MAX = 100_000
_GROUP_BYTES = 256  # a block's own parts, and the message's frame
_NAME_BYTES = 8  # a column's parts beside name and unit
_SCAN_BYTES = 32  # its time
_READING_BYTES = 9
_ROW_BYTES = 4  # a reading's row, where the scan does not hold the whole group
_FAULT_BYTES = 24  # what a reading's quality, absence and reason cost beside the reason's text


@dataclass
class _Open:
    """The batch of one machine that is being filled. Groups by identity, because to hash one is to hash all its tags.

    `named`: the tags of each group whose names it pays for already, by position; None: all of them.
    """

    scans: dict[int, list[Scan]] = field(default_factory=dict)
    named: dict[int, set[int] | None] = field(default_factory=dict)
    bytes: int = 0
    readings: int = 0

    def cost(self, scan: Scan, all_names: Callable[[Group], int]) -> int:
        """By how many bytes it grows with this scan, at most."""
        group, named = scan.group, self.named.get(id(scan.group), set())
        size = _scan_bytes(scan) if id(group) in self.named else _scan_bytes(scan) + _GROUP_BYTES
        if named is None:
            return size
        if scan.indexes is None:
            return size + all_names(group)
        return size + _name_bytes(group, set(scan.indexes) - named)

    def take(self, scan: Scan, cost: int) -> None:
        """Put it in."""
        self.scans.setdefault(id(scan.group), []).append(scan)
        named = self.named.setdefault(id(scan.group), set())
        if scan.indexes is None:
            self.named[id(scan.group)] = None
        elif named is not None:
            named.update(scan.indexes)
        self.bytes += cost
        self.readings += len(scan)


@dataclass(frozen=True, slots=True)
class Filled:
    """A draft with how many readings it holds, and about how much memory."""

    draft: Draft
    readings: int
    bytes: int


class Batcher:
    """`encoder` makes the messages. `machines`: device → machine."""

    def __init__(self, encoder: Encoder, machines: dict[str, str], bytes_max: int = BATCH_BYTES_MAX) -> None:
        self._encoder = encoder
        self._machines = machines
        self._bytes_max = bytes_max
        self._open: dict[str, _Open] = {}
        self._filled: list[Filled] = []
        self._name_bytes: dict[int, tuple[Group, int]] = {}  # of whole groups, by identity

    def _all_names(self, group: Group) -> int:
        if id(group) not in self._name_bytes:
            self._name_bytes[id(group)] = group, _name_bytes(group, range(len(group.tags)))
        return self._name_bytes[id(group)][1]

    @property
    def full(self) -> bool:
        """A batch is complete: drain soon."""
        return bool(self._filled)

    def add(self, scan: Scan) -> None:
        """Take one scan in. One that is larger than a batch is split."""
        if not len(scan):
            return
        machine = self._machines[scan.group.device]
        batch = self._open.setdefault(machine, _Open())
        cost = batch.cost(scan, self._all_names)
        if batch.bytes + cost <= self._bytes_max:
            batch.take(scan, cost)
        elif batch.readings:
            self._close(machine)
            self.add(scan)
        elif len(scan) > 1:
            evenly = cost * 10 // (self._bytes_max * 9) + 1  # readings differ in size: aim at nine tenths
            for piece in _pieces(scan, min(len(scan), evenly)):
                self.add(piece)
        else:
            batch.take(scan, cost)

    def _close(self, machine: str) -> None:
        batch = self._open.pop(machine)
        groups, encoder = list(batch.scans.values()), self._encoder

        def encoded(epoch: str, seq: int) -> Encoded:
            return encoder.encode(epoch, seq, groups)

        self._filled.append(Filled(Draft(machine, encoded), batch.readings, batch.bytes))

    def drain(self) -> list[Filled]:
        """All that was taken in so far, in order per machine."""
        for machine in list(self._open):
            self._close(machine)
        filled, self._filled = self._filled, []
        return filled


def _indexes(scan: Scan) -> Sequence[int]:
    return range(len(scan.values)) if scan.indexes is None else scan.indexes


def _scan_bytes(scan: Scan) -> int:
    each = _READING_BYTES if scan.indexes is None else _READING_BYTES + _ROW_BYTES
    texts = sum(_text_bytes(value, TEXT_MAX) for value in scan.values if type(value) is str)
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
