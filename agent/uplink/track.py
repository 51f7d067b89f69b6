"""One lane's numbers on their way to the receiver. Pure; the window (window.py) holds one for each lane.

Of the numbers that the outbox holds, each is in one of four places: `live` (just appended, goes first), `backlog` (to
be sent beside the live flow), `flights` (published, not confirmed), or `aside` (too large for the broker).
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from agent.outbox.contract import Held, Lane
from protocols.uplink.batch import SEQ_MAX
from protocols.uplink.ranges import Range, Ranges, add, common, contains, minus, of, union


@dataclass(slots=True)
class Flight:
    """A number that was published. `order`: of all publications, over lanes and connections.

    `flying`: the broker has not answered. `passed`: the receiver has what was published later, and lacks this: it is
    no longer on its way. `appended_s`: when it was appended, None where it was backlog.
    """

    size: int
    order: int
    sent_s: float
    history: bool
    appended_s: float | None = None
    flying: bool = True
    passed: bool = False


class Sent(NamedTuple):
    """Everything up to `through` was taken by the broker at least once, and `highest` is the highest that was."""

    through: int = 0
    highest: int = 0


class Tries(NamedTuple):
    """How often a number was sent again because it was missing, and when it was sent first."""

    times: int
    first_s: float


class Heard(NamedTuple):
    """What a confirm says, of numbers given here: what the receiver has, and what it misses.

    `strange`: numbers that it says it has, or knows, and that were never published here; not among `stored`.
    """

    stored: Ranges
    lost: Ranges
    strange: Ranges


@dataclass(frozen=True, slots=True)
class Word:
    """What a confirm of one lane means. `unknown`: the receiver misses these, and they do not wait here.

    `strange`: numbers that it says it has, or knows, and that were never published here; none counts as stored.
    `is_beyond`: it knows numbers that were never given here. `freed`: bytes of backlog that it confirmed.
    """

    unknown: Ranges = ()
    strange: Ranges = ()
    is_beyond: bool = False
    freed: int = 0


@dataclass(slots=True)
class Track:
    """`last`: the highest number known to be given. `stored`: by the receiver, as far as it said so in this run.

    `unseen`: given in this run and never published: nobody else can know them. `published`: the highest number that
    was, or was given before this run. `heard`: the highest that the receiver ever mentioned. `free_to`: numbers above
    may not go yet.
    `taken`: the highest that the broker took in this run.
    `is_heard`: it mentioned any. `is_growing`: numbers were given in this run. `piped`: flights that are not passed.
    """

    lane: Lane
    priority: int
    last: int = 0
    backlog: Ranges = ()
    unseen: Ranges = ()
    published: int = 0
    live: deque[tuple[int, float]] = field(default_factory=deque)
    flights: dict[int, Flight] = field(default_factory=dict)
    aside: list[int] = field(default_factory=list)
    stored: Ranges = ()
    dropped: Ranges = ()
    tries: dict[int, Tries] = field(default_factory=dict)
    heard: int = 0
    is_heard: bool = False
    is_growing: bool = False
    taken: int = 0
    free_to: int = SEQ_MAX
    rests_until_s: float = 0.0
    aside_until_s: float = 0.0
    piped: int = 0

    def lowest(self) -> int:
        """The lowest number that is not settled; the one after the last where all are."""
        return min(self._unsent(), min(self.flights, default=self.last + 1))

    def sent_seq(self) -> int:
        """Everything up to here was taken by the broker at least once."""
        return min(self._unsent(), min((seq for seq, one in self.flights.items() if one.flying), default=SEQ_MAX)) - 1

    def _unsent(self) -> int:
        """The lowest number that waits; the one after the last where none does."""
        unsent = self.last + 1
        if self.backlog:
            unsent = self.backlog[0][0]
        if self.live:
            unsent = min(unsent, self.live[0][0])
        return min(unsent, *self.aside) if self.aside else unsent

    def is_idle(self) -> bool:
        """Nothing here is unconfirmed."""
        return not (self.backlog or self.live or self.flights or self.aside)

    def waits(self, seq: int) -> bool:
        """Whether it is to be published."""
        return contains(self.backlog, seq) or any(seq == other for other, _ in self.live)

    def on_its_way(self) -> Ranges:
        """All that is to be published, or was, and is not confirmed."""
        listed = of([*self.flights, *self.aside, *(seq for seq, _ in self.live)])
        return union(self.backlog, listed) if self.backlog else listed

    def take_out(self, seq: int) -> float | None:
        """It is being published. Returns when it was appended, None where it waited in the backlog."""
        self.unseen = minus(self.unseen, ((seq, seq),))
        self.published = max(self.published, seq)
        if self.live and self.live[0][0] == seq:
            return self.live.popleft()[1]
        self.backlog = minus(self.backlog, ((seq, seq),))
        for at, (other, appended_s) in enumerate(self.live):
            if other == seq:
                del self.live[at]
                return appended_s
        return None

    def put_live(self, seq: int, appended_s: float) -> None:
        """Again among what goes first, in order."""
        waiting = list(self.live)
        insort(waiting, (seq, appended_s))
        self.live = deque(waiting)

    def put_behind(self, *seqs: int) -> None:
        """Into the backlog."""
        for seq in seqs:
            self.backlog = add(self.backlog, seq)

    def grow_old(self, before_s: float) -> bool:
        """What was appended before this moment, and still waits, becomes backlog. Whether there was any."""
        aged = False
        while self.live and self.live[0][1] < before_s:
            self.put_behind(self.live.popleft()[0])
            aged = True
        return aged

    def forget(self, gone: Ranges) -> None:
        """These need not be published any more."""
        self.backlog = minus(self.backlog, gone)
        self.unseen = minus(self.unseen, gone)
        if self.live and any(contains(gone, seq) for seq, _ in self.live):
            self.live = deque(item for item in self.live if not contains(gone, item[0]))
        if self.aside:
            self.aside = [seq for seq in self.aside if not contains(gone, seq)]
        if self.tries:
            self.tries = {seq: tries for seq, tries in self.tries.items() if not contains(gone, seq)}

    def hold(self, held: Held) -> list[int]:
        """Bring it up to date with the outbox. Returns flights that the outbox has let go of.

        What was given a number since the outbox was asked stays as it is.
        """
        if held.last > self.last:
            self.unseen = union(self.unseen, common(held.waiting, ((self.last + 1, held.last),)))
            self.last = held.last
        self.priority = held.priority
        self.note_dropped(held)
        given = ((1, held.last),) if held.last else ()
        gone = minus(given, held.waiting)
        self.forget(gone)
        self.backlog = union(self.backlog, minus(minus(held.waiting, self.stored), self.on_its_way()))
        return [seq for seq in self.flights if contains(gone, seq)]

    def note_dropped(self, held: Held) -> None:
        """What the outbox is about to declare. What was told once is not: the receiver may have lost it since."""
        self.dropped = union((), [(gone.first, gone.last) for gone in held.dropped])

    def hear(self, through: int, highest: int, missing: Sequence[Range]) -> Heard:
        """The receiver's word, see protocols/uplink/confirm.py. What it has need not be published any more.

        What it does not have, below what was published, is nothing strange: live numbers pass the backlog.
        """
        lost = union((), missing)
        self.is_heard = True
        self.heard = max(self.heard, through, highest, lost[-1][1] if lost else 0)
        given = ((1, self.last),) if self.last else ()
        lost = common(lost, given)
        below = ((1, through),) if through else ()
        above = ((through + 1, highest),) if highest > through else ()
        strange: Ranges = ()
        stored = common(union(below, minus(above, lost)), given)
        if self.unseen:
            known = ((self.published + 1, self.heard),) if self.heard > self.published else ()
            strange = common(self.unseen, union(stored, known))
            stored = minus(stored, strange)
        self.stored = minus(union(self.stored, stored), lost)
        self.forget(stored)
        return Heard(stored, lost, strange)
