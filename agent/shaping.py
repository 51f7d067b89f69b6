"""Between driver and batcher: filters, derived tags, report by exception. Pure, but for what its parts remember.

One `Shaping` per device; those of a machine's devices share a `Board`. A group of which nothing of this is configured
goes through untouched.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from agent.changes import Changes, Rule
from agent.derived import Board, Derived, Known
from agent.filters import Filters
from agent.rules import GroupRules, without_deadband
from agent.settings import Device
from protocols.field.contract import Driver, Group, Narrows, Quality, Scan

See = Callable[[Scan], None]


def _nothing(group: Group) -> Collection[int]:
    del group
    return ()


def _unseen(scan: Scan) -> None:
    del scan


def shaping(device: Device, board: Board, driver: Driver, *, reports_all: bool = False, see: See = _unseen) -> Shaping:
    """Of a device with this driver. `reports_all`: nothing is left out, for people who look."""
    narrowed = driver.narrowed if isinstance(driver, Narrows) else _nothing
    return Shaping(device, board, narrowed, reports_all=reports_all, see=see)


class Shaping:
    """`narrowed`: see contract.Narrows. `reports_all`: report by exception is left out.

    `see` gets everything, filtered and derived, before anything is left out.
    """

    def __init__(
        self,
        device: Device,
        board: Board,
        narrowed: Callable[[Group], Collection[int]] = _nothing,
        *,
        reports_all: bool = False,
        see: See = _unseen,
    ) -> None:
        self._see = see
        self._stages = {
            group.name: _Stage(group, device.rules, board, narrowed(group), reports_all, see)
            for group in device.groups
            if device.rules.get(group.name, GroupRules()) != GroupRules()
        }

    def of(self, group: Group, scans: Sequence[Scan], now_s: float, now_us: int) -> Sequence[Scan]:
        """What goes to the batcher of what a read of the group gave. `now_s`: monotonic; `now_us`: since 1970."""
        stage = self._stages.get(group.name)
        if stage is not None:
            return stage.of(scans, now_s, now_us)
        for scan in scans:
            self._see(scan)
        return scans

    def clock_set(self, ahead_us: int) -> None:
        """The clock is so far ahead of what it was."""
        for stage in self._stages.values():
            stage.clock_set(ahead_us)


class _Stage:
    """Of one group."""

    def __init__(
        self,
        group: Group,
        of: dict[str, GroupRules],
        board: Board,
        narrowed: Collection[int],
        reports_all: bool,
        see: See,
    ) -> None:
        self._see = see
        rules, derived = of[group.name], of[group.name].derived
        self._board = board
        self._filters = Filters(rules.filters) if rules.filters else None
        self._watched = rules.watched
        self._changes = None if reports_all else _changes(group, rules, narrowed)
        self._derived: Derived | None = None
        self._derived_changes: Changes | None = None
        if derived is not None:
            self._derived = Derived(derived, of[derived.name].filters, board)
            self._derived_changes = None if reports_all else _changes(derived, of[derived.name], ())

    def of(self, scans: Sequence[Scan], now_s: float, now_us: int) -> list[Scan]:
        if self._filters is not None:
            scans = [self._filters.of(scan) for scan in scans]
        for scan in scans:
            self._see(scan)
        if self._watched:
            for scan in scans:
                self._note(scan, now_us)
            self._still(scans, now_us)
        told = _told(self._changes, scans, now_s, now_us)
        if self._derived is not None:
            found = self._derived.of()
            if found is not None:
                self._see(found)
            told += _told(self._derived_changes, [] if found is None else [found], now_s, now_us)
        return told

    def clock_set(self, ahead_us: int) -> None:
        if self._derived is not None:
            self._derived.clock_set(ahead_us)

    def _note(self, scan: Scan, now_us: int) -> None:
        """What derived tags are made of, onto the board."""
        if scan.indexes is None:
            places, seen_us = [(at, at) for at in self._watched], scan.time_us
        else:
            places, seen_us = [(place, at) for place, at in enumerate(scan.indexes) if at in self._watched], now_us
        for place, at in places:
            code = Quality.GOOD if scan.quality is None else scan.quality[place]
            reason = scan.reasons.get(at, "")
            self._board[self._watched[at]] = Known(scan.values[place], code, scan.time_us, reason, seen_us)

    def _still(self, scans: Sequence[Scan], now_us: int) -> None:
        """What a subscription said nothing of is as it was."""
        if any(scan.indexes is None for scan in scans):
            return
        for name in self._watched.values():
            known = self._board.get(name)
            if known is not None and Quality.word(known.quality) != "bad":
                self._board[name] = known._replace(seen_us=now_us)


def _changes(group: Group, rules: GroupRules, narrowed: Collection[int]) -> Changes | None:
    if rules.changes is None:
        return None
    found: list[Rule | None] = [
        without_deadband(rule) if at in narrowed else rule for at, rule in enumerate(rules.changes)
    ]
    return Changes(group, found)


def _told(changes: Changes | None, scans: Sequence[Scan], now_s: float, now_us: int) -> list[Scan]:
    if changes is None:
        return list(scans)
    told = [found for scan in scans if (found := changes.of(scan, now_s)) is not None]
    overdue = changes.overdue(now_s, now_us)
    return told if overdue is None else [*told, overdue]
