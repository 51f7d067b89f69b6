"""What a device was found to refuse, by address: good for any plan, and kept over restarts as JSON. Pure.

Three kinds of fact, each found by dividing a refused request (`modbus_plan`):

- a *refused* place: the registers of one tag, refused when asked for alone, with the exception's code;
- a *barrier*: a range that no request may hold whole. What lies before and behind its middle is readable, but not
  together: an address between them is missing, or they belong to two areas of the device's memory;
- the *largest* request that the device takes for one unit and table, where that is below the configured limit.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import Any, NamedTuple

from protocols.field.modbus_address import Table
from protocols.field.modbus_plan import Span

VERSION = 1


class Barrier(NamedTuple):
    """No request for this unit and table may hold all of the addresses from `first` up to, not including, `end`."""

    unit_id: int
    table: Table
    first: int
    end: int


class Learned:
    """The facts of one device. `changed`: whether there is something new to keep."""

    def __init__(self) -> None:
        self.refused: dict[Span, int] = {}  # place → exception code
        self.barriers: set[Barrier] = set()
        self.largest: dict[tuple[int, Table], int] = {}  # unit and table → registers or bits
        self.changed = False

    def dump(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "version": VERSION,
            "refused": [[*span, code] for span, code in sorted(self.refused.items())],
            "barriers": [list(barrier) for barrier in sorted(self.barriers)],
            "largest": [[*key, count] for key, count in sorted(self.largest.items())],
        }

    @classmethod
    def load(cls, state: Mapping[str, Any]) -> Learned:
        """From `dump`. Raises ValueError, TypeError or KeyError when it is not what `dump` gives."""
        learned = cls()
        if state["version"] != VERSION:
            raise ValueError(f"version {state['version']} instead of {VERSION}")
        for unit_id, table, address, size, code in state["refused"]:
            learned.refused[Span(_whole(unit_id), Table(table), _whole(address), _whole(size))] = _whole(code)
        for unit_id, table, first, end in state["barriers"]:
            learned.barriers.add(Barrier(_whole(unit_id), Table(table), _whole(first), _whole(end)))
        for unit_id, table, count in state["largest"]:
            learned.largest[_whole(unit_id), Table(table)] = max(1, _whole(count))
        return learned

    def walls(self) -> Walls:
        """All that no request may hold whole, ready to be asked about."""
        return Walls(
            [*self.barriers, *(Barrier(span.unit_id, span.table, span.address, span.end) for span in self.refused)]
        )


def _whole(number: Any) -> int:
    if type(number) is not int or not 0 <= number <= 65_536:
        raise ValueError(f"{number!r} is no address")
    return number


class Walls:
    """Answers one question quickly: does a request hold any barrier whole?"""

    def __init__(self, barriers: list[Barrier]) -> None:
        self._firsts: dict[tuple[int, Table], list[int]] = {}
        self._ends: dict[tuple[int, Table], list[int]] = {}  # the least end of this barrier and those behind it
        for barrier in sorted(barriers, reverse=True):
            key = barrier[:2]
            ends = self._ends.setdefault(key, [])
            self._firsts.setdefault(key, []).append(barrier.first)
            ends.append(min(barrier.end, ends[-1]) if ends else barrier.end)
        for lists in (self._firsts, self._ends):
            for found in lists.values():
                found.reverse()

    def hit(self, unit_id: int, table: Table, address: int, end: int) -> bool:
        """Whether a request for `address` up to, not including, `end` holds a barrier whole."""
        firsts = self._firsts.get((unit_id, table))
        if firsts is None:
            return False
        at = bisect_left(firsts, address)
        return at < len(firsts) and self._ends[unit_id, table][at] <= end
