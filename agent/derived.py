"""Tags that are computed from others of their machine: expressions and rates. Pure, but for what they remember.

A derived tag is computed once per read of its group, if anything that it is made of has been read anew since. It has
no reading before all of that has one. Its quality is the worst among what it is made of; its time is that of the
newest, and always later than its own last one. What cannot be computed is bad, and the reason says why in words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from agent.expression import Expression
from agent.filters import Filter, Wanted
from protocols.field.contract import Group, Scan
from protocols.values import Quality, Value

_STEP_US = 1000


class Known(NamedTuple):
    """A tag's last reading. `reason`: "" where it is good.

    `seen_us`: when it was last known to be so. That is the reading's own time where every read gives one; of a
    subscription, which is silent while nothing changes, it is the time of the last read that went well.
    """

    value: Value
    quality: int
    time_us: int
    reason: str
    seen_us: int


Board = dict[str, Known]
"""What derived tags of one machine are made of: the last readings by name."""


def move(board: Board, ahead_us: int) -> None:
    """The clock was set, and is so far ahead of what it was: readings from before are as old as they were."""
    for name, known in board.items():
        board[name] = known._replace(time_us=known.time_us + ahead_us, seen_us=known.seen_us + ahead_us)


class Result(NamedTuple):
    """What came of it."""

    value: Value
    quality: int = Quality.GOOD
    reason: str = ""


class Formula(Protocol):
    """How a derived tag is computed: the `address` of its Tag. `names`: of what. `made` makes one that remembers.

    `moment`: which of a reading's two times counts. It is new when that is another.
    """

    @property
    def names(self) -> tuple[str, ...]: ...

    def moment(self, known: Known) -> int: ...

    def made(self) -> Computation: ...


class Computation(Protocol):
    """`of` gets the last readings in the order of the formula's names, each time that one of them is new.

    None: there is nothing to say yet.
    """

    def of(self, known: Sequence[Known]) -> Result | None: ...


@dataclass(frozen=True, slots=True)
class Computed:
    """By an expression."""

    expression: Expression

    @property
    def names(self) -> tuple[str, ...]:
        return self.expression.names

    def moment(self, known: Known) -> int:
        return known.time_us

    def made(self) -> Computed:
        return self

    def of(self, known: Sequence[Known]) -> Result | None:
        """See Computation."""
        worst = _worst(self.names, known)
        if Quality.word(worst.quality) == "bad":
            return worst
        try:
            return Result(self.expression.value([one.value for one in known]), worst.quality, worst.reason)
        except ZeroDivisionError:
            return self._failed("division by zero", known)
        except OverflowError:
            return self._failed("the result is too large for a number", known)
        except (ValueError, ArithmeticError):
            return self._failed("a root, a power or a logarithm has no value", known)
        except TypeError:
            return self._failed("a value is not of the type that the expression needs", known)

    def _failed(self, what: str, known: Sequence[Known]) -> Result:
        given = ", ".join(f"{name} = {_short(one.value)}" for name, one in zip(self.names, known, strict=True))
        return Result(None, Quality.BAD_OUT_OF_RANGE, f"{what}, where {given}")


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast a tag changes, per second. One that is silent because nothing changes stands still."""

    tag: str

    @property
    def names(self) -> tuple[str, ...]:
        return (self.tag,)

    def moment(self, known: Known) -> int:
        return known.seen_us

    def made(self) -> Changing:
        return Changing(self.tag)


class Changing:
    """The rate between a tag's last two readings. After a bad one, or when the clock was set back, it begins anew."""

    def __init__(self, tag: str) -> None:
        self._tag = tag
        self._last: Known | None = None

    def of(self, known: Sequence[Known]) -> Result | None:
        """See Computation."""
        [now] = known
        last = self._last
        if Quality.word(now.quality) == "bad" or now.value is None:
            self._last = None
            return _worst((self._tag,), known)
        if not isinstance(now.value, int | float):
            self._last = None
            return Result(None, Quality.BAD_TYPE_MISMATCH, f"{self._tag}: its value is no number")
        if last is not None and now.seen_us == last.seen_us:
            return None
        self._last = now
        if last is None or now.seen_us < last.seen_us or not isinstance(last.value, int | float):
            return None
        worst = _worst((self._tag, self._tag), (last, now))
        try:
            rate = (now.value - last.value) / ((now.seen_us - last.seen_us) / 1e6)
        except OverflowError:
            rate = math.inf
        if not math.isfinite(rate):
            return Result(None, Quality.BAD_OUT_OF_RANGE, f"{self._tag} changed by more than a number can hold")
        return Result(rate, worst.quality, worst.reason)


def _worst(names: Sequence[str], known: Sequence[Known]) -> Result:
    """The worst quality among these, and whose it is; no value."""
    name, worst = max(zip(names, known, strict=True), key=lambda pair: pair[1].quality >> 30)
    if worst.value is None and Quality.word(worst.quality) != "bad":
        return Result(None, Quality.BAD, f"{name}: it has no value")
    if worst.quality == Quality.GOOD:
        return Result(None)
    return Result(None, worst.quality, f"{name}: {worst.reason or Quality.name(worst.quality)}")


class Derived:
    """The derived tags of one group, in an order in which each comes after those that it is made of.

    `wanted`: filters by position. `board` is read, and gets the results.
    """

    def __init__(self, group: Group, wanted: Mapping[int, Wanted], board: Board) -> None:
        self._group = group
        self._board = board
        self._formulas: list[Formula] = [tag.address for tag in group.tags]
        self._computations = [formula.made() for formula in self._formulas]
        self._filters = {at: Filter(one) for at, one in wanted.items()}
        self._used: list[list[tuple[int, int, Value]]] = [[] for _ in self._formulas]
        self._time_us = 0

    def clock_set(self, ahead_us: int) -> None:
        """The clock is so far ahead of what it was: the times of results, which only rise, go on from there."""
        self._time_us += ahead_us

    def of(self) -> Scan | None:
        """What is new; None where nothing is."""
        results: dict[int, Result] = {}
        time_us = self._time_us + _STEP_US
        for at, formula in enumerate(self._formulas):
            known = [self._board[name] for name in formula.names if name in self._board]
            moments = [(formula.moment(one), one.quality, one.value) for one in known]
            if len(known) < len(formula.names) or moments == self._used[at]:
                continue
            self._used[at] = moments
            result = self._computations[at].of(known)
            if result is not None:
                newest_us = max(moment_us for moment_us, _, _ in moments)
                result = results[at] = self._filtered(at, result, newest_us)
                time_us = max(time_us, newest_us)
                mine = Known(result.value, result.quality, newest_us, result.reason, newest_us)
                self._board[self._group.tags[at].name] = mine
        if not results:
            return None
        self._time_us = time_us
        return self._scan(results, time_us)

    def _filtered(self, at: int, result: Result, time_us: int) -> Result:
        one = self._filters.get(at)
        return result if one is None else result._replace(value=one.of(result.value, time_us))

    def _scan(self, results: Mapping[int, Result], time_us: int) -> Scan:
        quality = [one.quality for one in results.values()]
        return Scan(
            self._group,
            time_us,
            [one.value for one in results.values()],
            None if len(results) == len(self._formulas) else list(results),
            quality if any(quality) else None,
            {at: one.reason for at, one in results.items() if one.reason},
        )


def _short(value: Value) -> str:
    return f"{value:.6g}" if isinstance(value, float) else f"{value!r:.20}"
