"""Which batches are on their way. Pure: no socket, no disk, no clock; takes events and the time, returns numbers.

Live first: what is appended while there is a connection goes before everything else, lanes of high priority first.
What was appended before the connection, or could not be sent within LIVE_S, is backlog: it goes beside the live flow,
in ascending order, as fast as agent/uplink/pace.py lets it.
How much may be on its way at a time: agent/uplink/load.py.

A number is published again only when
- the connection broke before the broker acknowledged it, or the broker refused it,
- the session was lost (the broker has forgotten us, and with us perhaps everything) and no confirm covers it, or
- the receiver says that it is missing, and it is no longer on its way: the receiver has stored what was published after
  it, or nothing has been confirmed for RESEND_S; and RESEND_S have passed since it was last published, twice as long
  after each time that the same run of the receiver has missed it.
Publishing twice does no harm (the receiver stores once); publishing never would.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from agent.outbox.contract import PRIORITIES, Held, Lane
from agent.uplink.load import LOAD_BYTES, LOAD_COUNT, Load
from agent.uplink.track import Flight, Sent, Track, Tries, Word
from protocols.uplink.batch import SEQ_MAX
from protocols.uplink.ranges import Range, Ranges, add, contains, minus

LIVE_S = 5.0
RESEND_S = 10.0
RESEND_S_MAX = 60.0
ASIDE_MAX = 3
ASIDE_REST_S = 60.0

_ORDER = tuple(sorted(PRIORITIES, reverse=True))


class Run(NamedTuple):
    """Numbers `first` to `last` of a lane's backlog are next."""

    lane: Lane
    first: int
    last: int


class Window:
    """Events in, numbers out."""

    def __init__(self, count_max: int = LOAD_COUNT, bytes_max: int = LOAD_BYTES) -> None:
        self._load = Load(count_max, bytes_max)
        self._tracks: dict[Lane, Track] = {}
        self._live: dict[int, deque[Lane]] = {priority: deque() for priority in _ORDER}
        self._queued: set[Lane] = set()
        self._resting: set[Lane] = set()
        self._behind: dict[int, dict[Lane, None]] = {priority: {} for priority in _ORDER}
        self._is_connected = False
        self._is_holding = False
        self._order = self._order_stored = 0
        self._progress_s = 0.0
        self._aged_s = 0.0
        self._looked: dict[Lane, int] = {}

    @property
    def backlog_bytes(self) -> int:
        """Of the backlog on its way."""
        return self._load.backlog_bytes

    # --- what is there ---

    def __contains__(self, lane: Lane) -> bool:
        return lane in self._tracks

    def hold(self, held: Mapping[Lane, Held]) -> None:
        """What the outbox holds. It may have been asked a moment ago: later events are not undone."""
        for lane, one in held.items():
            if lane not in self._tracks:
                track = self._track(lane, one.priority)
                track.last = track.published = one.last
            track = self._tracks[lane]
            for seq in track.hold(one):
                self._settle(track, seq)
            self._note_backlog(track)

    def look(self, held: Mapping[Lane, Held]) -> None:
        """Now and then: take in what the outbox gave by itself, when it thinned out, and no append has told of since.

        What it held at the look before, too: of the newest the append may just be on its way here. And what it has
        still to declare: what was told meanwhile is asked for again where the receiver's database is put back.
        """
        for lane in held.keys() & self._tracks.keys():
            self._tracks[lane].note_dropped(held[lane])
        overlooked = {lane: one for lane, one in held.items() if self._last(lane) < self._looked.get(lane, 0)}
        self._looked = {lane: one.last for lane, one in held.items()}
        self.hold(overlooked)

    def _last(self, lane: Lane) -> int:
        return self._tracks[lane].last if lane in self._tracks else 0

    def reset(self) -> None:
        """Forget what waits: numbers have moved to other lanes. `hold` follows."""
        for track in self._tracks.values():
            track.forget(((1, SEQ_MAX),))

    def appended(self, lane: Lane, seq: int, priority: int, now_s: float) -> bool:
        """The outbox has given this number. False where the receiver mentioned it before: somebody else gave it."""
        track = self._track(lane, priority)
        if seq <= track.last:  # `hold` knew of it already
            return True
        if seq > track.last + 1:  # numbers that the outbox gave by itself, when it thinned out
            track.backlog = add(track.backlog, track.last + 1, seq - 1)
            self._note_backlog(track)
        track.unseen = add(track.unseen, track.last + 1, seq)
        track.last, track.is_growing = seq, True
        if self._is_connected:
            track.live.append((seq, now_s))
            self._note_live(track)
        else:
            track.put_behind(seq)
            self._note_backlog(track)
        return seq > track.heard

    def is_growing(self, lane: Lane) -> bool:
        """Whether numbers of this lane were given in this run."""
        return self._tracks[lane].is_growing

    def unsent(self) -> dict[Lane, Ranges]:
        """What was given in this run, and never published."""
        return {lane: track.unseen for lane, track in self._tracks.items() if track.unseen}

    def growing(self) -> set[str]:
        """The epochs of those."""
        return {lane.epoch for lane, track in self._tracks.items() if track.is_growing}

    def sent(self, lane: Lane) -> Sent:
        """What the broker took of it; nothing of an unknown lane."""
        track = self._tracks.get(lane)
        return Sent() if track is None else Sent(track.sent_seq(), track.taken)

    def settled_through(self, lane: Lane) -> int:
        """Everything up to here is confirmed, or was let go of."""
        track = self._tracks.get(lane)
        return 0 if track is None else track.lowest() - 1

    def stored(self, lane: Lane) -> tuple[int, Ranges]:
        """(all up to here, and these above) of what the receiver has, or was dropped, as far as is known."""
        track = self._tracks[lane]
        low = track.lowest() - 1
        return low, minus(track.stored, ((1, low),))

    def idle(self) -> bool:
        """Everything held is confirmed."""
        return all(track.is_idle() for track in self._tracks.values())

    def oldest_unconfirmed(self) -> tuple[Lane, int, float] | None:
        """(lane, number, since when) of what the broker has taken first, and nobody has confirmed."""
        found = [
            (track.tries[seq].first_s if seq in track.tries else flight.sent_s, track.lane, seq)
            for track in self._tracks.values()
            for seq, flight in track.flights.items()
            if not flight.flying
        ]
        since_s, lane, seq = min(found, default=(0.0, None, 0))
        return None if lane is None else (lane, seq, since_s)

    # --- what to do ---

    def next_live(self, now_s: float) -> tuple[Lane, int] | None:
        """The next number that goes before all others; None while there is none, or the window is full."""
        self._pass_time(now_s)
        if not self._load.takes():
            return None
        for priority in _ORDER:
            queue = self._live[priority]
            for _ in range(len(queue)):
                track = self._tracks[queue[0]]
                if not track.live:
                    self._queued.discard(queue.popleft())
                    continue
                queue.rotate(-1)
                if self._is_free(track, track.live[0][0], self._load.share(len(self._tracks))):
                    return track.lane, track.live[0][0]
        return None

    def next_run(self, count_max: int, now_s: float) -> Run | None:
        """The next of the backlog, at most so many; lanes of one priority take turns."""
        self._pass_time(now_s)
        if not self.takes_backlog():
            return None
        share = self._load.backlog_share(len(self._tracks))
        for priority in _ORDER:
            lanes = self._behind[priority]
            for lane in list(lanes):
                track = self._tracks[lane]
                del lanes[lane]
                if not track.backlog:
                    continue
                lanes[lane] = None
                first, last = track.backlog[0]
                if self._is_free(track, first, share):
                    return Run(lane, first, min(last, first + count_max - 1, track.free_to))
        return None

    def takes_backlog(self) -> bool:
        """Whether the window has room for more of the backlog."""
        return self._load.takes_backlog()

    def may_go(self, lane: Lane, seq: int, now_s: float) -> bool:
        """Whether this number of the backlog is still to be published, and its lane may go on."""
        self._pass_time(now_s)
        track = self._tracks[lane]
        return track.waits(seq) and self._is_free(track, seq, self._load.backlog_share(len(self._tracks)))

    def has_live(self) -> bool:
        """Whether anything waits to go first; perhaps held up."""
        return bool(self._queued)

    def has_backlog(self) -> bool:
        """Whether anything is behind; perhaps held up."""
        return any(self._tracks[lane].backlog for lanes in self._behind.values() for lane in lanes)

    def waits(self, lane: Lane, seq: int) -> bool:
        """Whether this number is still to be published."""
        return self._tracks[lane].waits(seq)

    def rests_until_s(self) -> float | None:
        """When the first lane that rests may go on, or what stepped aside may be tried again."""
        tracks = [self._tracks[lane] for lane in self._resting]
        untils = [one for track in tracks for one in (track.rests_until_s, track.aside_until_s) if one]
        return min(untils, default=None)

    @staticmethod
    def _is_free(track: Track, seq: int, share: int) -> bool:
        return not track.rests_until_s and seq <= track.free_to and track.piped < share

    def _pass_time(self, now_s: float) -> None:
        for lane in list(self._resting):
            self._end_rest(self._tracks[lane], now_s)
        if now_s - self._aged_s >= LIVE_S / 10:
            self._aged_s = now_s
            for lane in self._queued:
                if self._tracks[lane].grow_old(now_s - LIVE_S):
                    self._note_backlog(self._tracks[lane])

    def _end_rest(self, track: Track, now_s: float) -> None:
        if track.rests_until_s <= now_s:
            track.rests_until_s = 0.0
        if track.aside_until_s <= now_s:
            track.aside_until_s = 0.0
            track.put_behind(*track.aside)
            track.aside.clear()
            self._note_backlog(track)
        if not (track.rests_until_s or track.aside_until_s):
            self._resting.discard(track.lane)

    # --- what happened ---

    def published(self, lane: Lane, seq: int, size: int, now_s: float, *, history: bool) -> None:
        """Handed to the link; `history`: as part of the backlog."""
        track = self._tracks[lane]
        appended_s = track.take_out(seq)
        self._order += 1
        track.flights[seq] = Flight(size, self._order, now_s, history, appended_s)
        track.piped += 1
        self._load.add(size, history=history)

    def accepted(self, lane: Lane, seq: int) -> None:
        """The broker has it."""
        track = self._tracks[lane]
        track.taken = max(track.taken, seq)
        self._landed(track, seq)

    def refused(self, lane: Lane, seq: int, now_s: float, rest_s: float = 0.0) -> None:
        """The broker, or nobody at all, has it: it is to be published again, after a rest of the lane."""
        track = self._tracks[lane]
        if rest_s:
            track.rests_until_s = now_s + rest_s
            self._resting.add(lane)
        if self._landed(track, seq):
            self._put_back(track, seq, now_s)

    def too_large(self, lane: Lane, seq: int, now_s: float) -> None:
        """The broker does not take it. It steps aside for the others; where they are too large, too, the lane rests."""
        track = self._tracks[lane]
        if self._landed(track, seq):
            self._remove(track, seq)
            track.aside = sorted({*track.aside, seq})
        track.aside_until_s = now_s + ASIDE_REST_S
        if len(track.aside) >= ASIDE_MAX:
            track.rests_until_s = track.aside_until_s
        self._resting.add(lane)

    def aside(self, lane: Lane) -> Sequence[int]:
        """Numbers that the broker does not take, and that are in the way of others that it does."""
        return tuple(self._tracks[lane].aside)

    def gone(self, lane: Lane, numbers: Ranges) -> None:
        """The outbox holds these no longer."""
        track = self._tracks[lane]
        track.forget(numbers)
        for seq in [seq for seq in track.flights if contains(numbers, seq)]:
            self._settle(track, seq)

    def settled(self, lane: Lane, seq: int) -> int:
        """Where the broker's word is the receiver's: it has this number. Returns the bytes of backlog freed."""
        track = self._tracks[lane]
        track.stored = add(track.stored, seq)
        return self._settle(track, seq)

    def connected(self, session_present: bool, now_s: float) -> None:
        """A new connection: what waits is backlog; what was in flight goes again; without a session, all of it."""
        self._is_connected = True
        self._progress_s = now_s
        for track in self._tracks.values():
            again = [seq for seq, flight in track.flights.items() if flight.flying or not session_present]
            for seq in again:
                self._remove(track, seq)
            track.put_behind(*again, *(seq for seq, _ in track.live))
            track.live.clear()
            track.rests_until_s = track.aside_until_s = 0.0
            self._end_rest(track, now_s)

    def disconnected(self) -> None:
        """What is appended from now on is backlog."""
        self._is_connected = False

    # --- what the receiver says ---

    def hold_back(self) -> None:
        """What was never published in this run waits until the receiver has spoken: it might know that number.

        A machine that was set back to a snapshot with its memory goes on as if nothing had happened.
        """
        self._is_holding = True
        for track in self._tracks.values():
            track.free_to = track.published

    def let_go(self, lane: Lane | None = None) -> None:
        """The receiver has spoken of this lane, or nothing more is to be waited for."""
        if lane is not None:
            self._tracks[lane].free_to = SEQ_MAX
            return
        self._is_holding = False
        for track in self._tracks.values():
            track.free_to = SEQ_MAX

    def is_heard(self, lane: Lane) -> bool:
        """Whether the receiver has spoken of this lane, in this run."""
        return self._tracks[lane].is_heard

    def try_anew(self) -> None:
        """Another run of the receiver speaks: that messages got lost before it is no sign that they will again."""
        for track in self._tracks.values():
            track.tries = {seq: one._replace(times=0) for seq, one in track.tries.items()}

    def confirmed(self, lane: Lane, through_seq: int, highest: int, missing: Sequence[Range], now_s: float) -> Word:
        """The receiver's word on a lane that is known here: see protocols/uplink/confirm.py."""
        track = self._tracks[lane]
        heard = track.hear(through_seq, highest, missing)
        freed = 0
        for seq in [seq for seq in track.flights if contains(heard.stored, seq)]:
            self._order_stored = max(self._order_stored, track.flights[seq].order)
            self._progress_s = now_s
            freed += self._settle(track, seq)
        if freed:
            self._load.grow()
        unknown: Ranges = ()
        if heard.lost:
            self._miss(track, heard.lost, highest, now_s)
            unknown = minus(minus(heard.lost, track.on_its_way()), track.dropped)
        return Word(unknown, heard.strange, track.heard > track.last, freed)

    def _miss(self, track: Track, lost: Ranges, highest: int, now_s: float) -> None:
        is_quiet = now_s - self._progress_s >= RESEND_S
        for seq in [seq for seq, flight in track.flights.items() if not flight.flying and contains(lost, seq)]:
            flight = track.flights[seq]
            is_overtaken = flight.order < self._order_stored or seq > highest
            if is_overtaken and not flight.passed:
                self._unpipe(track, flight)
                flight.passed = True
            tries = track.tries.get(seq, Tries(0, flight.sent_s))
            patience_s = min(RESEND_S * 2 ** min(tries.times, 10), RESEND_S_MAX)
            if (is_overtaken or is_quiet) and now_s - flight.sent_s >= patience_s:
                track.tries[seq] = Tries(tries.times + 1, tries.first_s)
                self._put_back(track, seq, now_s)
                self._load.thin(now_s)

    # --- the account ---

    def _track(self, lane: Lane, priority: int) -> Track:
        track = self._tracks.get(lane)
        if track is None:
            track = self._tracks[lane] = Track(lane, priority)
            if self._is_holding:
                track.free_to = 0
        return track

    def _note_live(self, track: Track) -> None:
        if track.lane not in self._queued:
            self._queued.add(track.lane)
            self._live[track.priority].append(track.lane)

    def _note_backlog(self, track: Track) -> None:
        if track.backlog:
            self._behind[track.priority].setdefault(track.lane)

    def _unpipe(self, track: Track, flight: Flight) -> None:
        track.piped -= 1
        self._load.remove(flight.size, history=flight.history)

    @staticmethod
    def _landed(track: Track, seq: int) -> bool:
        """The broker has answered, which was waited for."""
        flight = track.flights.get(seq)
        was_flying = flight is not None and flight.flying
        if flight is not None:
            flight.flying = False
        return was_flying

    def _remove(self, track: Track, seq: int) -> Flight:
        flight = track.flights.pop(seq)
        if not flight.passed:
            self._unpipe(track, flight)
        return flight

    def _settle(self, track: Track, seq: int) -> int:
        """It needs no more care. Returns the bytes of backlog that are no longer on their way."""
        track.tries.pop(seq, None)
        if seq not in track.flights:
            return 0
        flight = self._remove(track, seq)
        return flight.size if flight.history and not flight.passed else 0

    def _put_back(self, track: Track, seq: int, now_s: float) -> None:
        flight = self._remove(track, seq)
        if flight.appended_s is not None and now_s - flight.appended_s < LIVE_S and not flight.history:
            track.put_live(seq, flight.appended_s)
            self._note_live(track)
        else:
            track.put_behind(seq)
            self._note_backlog(track)
