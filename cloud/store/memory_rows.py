"""What the store in plain Python keeps of epochs, machines and gateways."""

from __future__ import annotations

from dataclasses import dataclass, field

from cloud.sequence import Fall, Span, overlay
from cloud.speakers import Speakers
from cloud.store.contract import GATEWAY_EVENTS_MAX, GatewayEvent, LatestValue, Ledger
from protocols.uplink import ranges
from protocols.uplink.presence import Heard


@dataclass(slots=True)
class Epoch:
    """A machine's numbers in one epoch. `order`: of first appearance; `gateway`: who sends in it."""

    order: int
    gateway: str
    digests: dict[int, bytes] = field(default_factory=dict)
    dropped: list[Span] = field(default_factory=list)
    known: int = 0
    given: int = 0
    sent: int = 0
    vouched: int = 0
    named_us: int | None = None
    stored_us: int | None = None
    readings: int = 0
    live: list[tuple[int, int]] = field(default_factory=list)  # (received, number) of batches that were not historical

    def ledger(self, name: str, status_us: int | None) -> Ledger:
        """`status_us`: when its gateway's last status came."""
        stored = ranges.of(self.digests)
        dropped = ranges.union([(span.first, span.last) for span in self.dropped], ())
        named = status_us is not None and self.named_us == status_us
        lost = ranges.minus(dropped, stored)
        awaited = status_us is not None and self.stored_us is not None and self.stored_us >= status_us
        numbers = (self.known, self.given, self.sent)
        return Ledger(name, stored, lost, *numbers, named, self.readings, self.vouched, awaited)

    def sent_by(self, gateway: str) -> None:
        """What a batch says counts as long as no status has named this epoch."""
        if gateway and self.named_us is None:
            self.gateway = gateway

    def name(self, now_us: int, last: int, fallen: Fall) -> None:
        """A status that is not history says that `last` was given."""
        self.named_us = now_us
        self.vouched = last if fallen is not Fall.NONE else max(self.vouched, last)
        if fallen is Fall.OURS:
            self.known = max(self.known, self.given)

    def lose(self, first: int, last: int, reason: str) -> None:
        """Numbers that were let go."""
        self.dropped = overlay(self.dropped, Span(first, last, reason))
        self.known = max(self.known, last)


Ranked = tuple[tuple[int, int, int], LatestValue]
"""What makes a value the newest: time, order of the epoch, seq."""


@dataclass(slots=True)
class Machine:
    """With its epochs by name, and per tag the newest value and what makes it that."""

    state: str = "pending"
    gateway: str = ""
    last_event_us: int | None = None
    epochs: dict[str, Epoch] = field(default_factory=dict)
    tags: set[str] = field(default_factory=set)
    latest: dict[str, Ranked] = field(default_factory=dict)


@dataclass(slots=True)
class Gateway:
    """What is known of it."""

    registered: bool = False
    heard: Heard = field(default_factory=Heard)
    status_us: int | None = None
    speakers: Speakers = field(default_factory=Speakers)
    noted: str = ""
    noted_us: int | None = None
    events: list[GatewayEvent] = field(default_factory=list)

    def note(self, at_us: int, event: str, detail: str) -> None:
        """Into its history."""
        self.events = [*self.events, GatewayEvent(at_us, event, detail)][-GATEWAY_EVENTS_MAX:]

    def note_presence(self, at_us: int, word: str, detail: str) -> None:
        """A change of presence, likewise."""
        self.noted, self.noted_us = word, at_us
        self.note(at_us, word, detail)
