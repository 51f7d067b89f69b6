"""How fast the backlog goes, so that what is live never stands behind it in any queue. Pure: takes events and the time.

Three bounds, all of which hold for backlog alone:

- Rate: a token bucket of `bytes_per_s`, for lines that others use, too. 0: no such bound.
- Link: handed to the link and not yet acknowledged by the broker is at most what the link took within QUEUE_S and one
  round trip, and one message. So a live message waits for at most about QUEUE_S of backlog on a slow line, and a fast
  line is filled. (As TCP BBR reckons: rate × shortest round trip is on the line, and the rest stands in a queue.)
- Receiver: published and not yet confirmed is at most GAIN times what the receiver stores from one confirm to the next
  and within a round trip, so that it has about one and a half confirms' worth of backlog before it. It begins with
  CREDIT_MIN, and doubles whenever the receiver had stored all that had reached it when it confirmed.
"""

from __future__ import annotations

from collections import deque

BACKLOG_BYTES_PER_S = 4_000_000
QUEUE_S = 0.25
BURST_S = 0.25
GAIN = 1.5
CREDIT_MIN = 256 << 10
CREDIT_UNCAPPED = 4 << 20
"""Where no rate is set, whoever set that wants it fast: it begins with so much."""

WORDS = 3
TOGETHER_S = 0.1


class Pace:
    """`bytes_per_s`: 0 for no bound. `count_max`: so many messages of the backlog in flight, at most."""

    def __init__(self, bytes_per_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._count_max = 1
        self._tokens = 0.0
        self._filled_s = 0.0
        self._flying = 0
        self._flying_bytes = 0
        self._trip_s = 0.0
        self._took: deque[tuple[float, int]] = deque()
        self._took_bytes = 0
        self._credit = CREDIT_MIN
        self._was_short = False
        self._words: deque[int] = deque(maxlen=WORDS)
        self._word_s = 0.0
        self.connected(0.0, 1)

    def connected(self, now_s: float, count_max: int) -> None:
        """A new connection: nothing is known of it yet."""
        self._count_max = max(1, count_max)
        self._tokens, self._filled_s = self._burst(), now_s
        self._flying = self._flying_bytes = 0
        self._trip_s = 0.0
        self._took.clear()
        self._took_bytes = 0
        self._credit = CREDIT_MIN if self._bytes_per_s else CREDIT_UNCAPPED
        self._was_short = False
        self._words.clear()

    # --- what may go ---

    def may(self, size: int, unconfirmed_bytes: int, now_s: float) -> bool:
        """Whether a message of the backlog may go now. `unconfirmed_bytes`: of the backlog, published already."""
        if unconfirmed_bytes and unconfirmed_bytes + size > self._credit:
            self._was_short = True
            return False
        return self._flying < self._count_max and self._fits_link(now_s) and self.wait_s(now_s) == 0

    def wait_s(self, now_s: float) -> float:
        """How long until the rate allows another message."""
        if not self._bytes_per_s:
            return 0.0
        self._tokens = min(self._burst(), self._tokens + (now_s - self._filled_s) * self._bytes_per_s)
        self._filled_s = now_s
        return 0.0 if self._tokens > 0 else (1 - self._tokens) / self._bytes_per_s

    def _burst(self) -> float:
        return max(1.0, self._bytes_per_s * BURST_S)

    def _fits_link(self, now_s: float) -> bool:
        self._forget(now_s)
        return self._flying_bytes <= self._took_bytes

    def _forget(self, now_s: float) -> None:
        begin_s = now_s - QUEUE_S - self._trip_s
        while self._took and self._took[0][0] < begin_s:
            self._took_bytes -= self._took.popleft()[1]

    # --- what happened ---

    def published(self, size: int) -> None:
        """A message of the backlog was handed to the link."""
        self._tokens -= size
        self._flying += 1
        self._flying_bytes += size

    def answered(self, size: int, took_s: float, now_s: float, *, history: bool) -> None:
        """The broker has acknowledged a message, of the backlog or not; `took_s`: how long that took."""
        self._took.append((now_s, size))
        self._took_bytes += size
        self._forget(now_s)
        self._trip_s = min(self._trip_s or took_s, took_s)
        if history:
            self._flying -= 1
            self._flying_bytes -= size

    def confirmed(self, freed_bytes: int, left_bytes: int, now_s: float) -> None:
        """One confirm freed so much backlog and left so much unconfirmed. Those that come together count as one."""
        if not freed_bytes:
            return
        interval_s = now_s - self._word_s
        if self._words and interval_s < TOGETHER_S:
            self._words[-1] += freed_bytes
        else:
            on_line = self._trip_s / interval_s if self._words else 0.0
            self._words.append(int(freed_bytes * (1 + on_line)))
            self._word_s = now_s
        earned = int(GAIN * max(self._words))
        if left_bytes <= self._flying_bytes and self._was_short:  # the receiver had nothing more to do
            earned = max(earned, 2 * self._credit)
        if len(self._words) == WORDS or earned > self._credit:
            self._credit = max(CREDIT_MIN, earned)
        self._was_short = False
