"""What people see of a gateway, a machine's ledger and the receiver itself: the same words on page and command line.

Pure: takes rows of the store and the time, returns values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cloud.store.contract import GatewayRow
from protocols.uplink.presence import Presence, presence
from protocols.uplink.status import DeviceLink
from protocols.uplink.topics import Plant

RECEIVER_SILENCE_S = 15.0
"""The receiver notes in the database every 5 s that it is there; after this long without it, it is not."""


@dataclass(frozen=True, slots=True)
class Receiving:
    """Whether a receiver is at work. Times in microseconds since 1970.

    `as_of_us`: when what the database says of gateways was true: now, or when the receiver was last there.
    `listening_since_us`: of its connection to the broker; equal to `as_of_us` where it has none.
    """

    running: bool
    as_of_us: int
    listening_since_us: int

    @property
    def connected(self) -> bool:
        """Whether it hears the gateways."""
        return self.running and self.listening_since_us < self.as_of_us


def receiving(beat: tuple[int, int] | None, now_us: int) -> Receiving | None:
    """From the store's `receiver()`; None where no receiver has ever run."""
    if beat is None:
        return None
    since_us, beat_us = beat
    if abs(now_us - beat_us) > RECEIVER_SILENCE_S * 1_000_000:
        return Receiving(False, beat_us, since_us)
    return Receiving(True, now_us, now_us if since_us >= beat_us else since_us)


@dataclass(frozen=True, slots=True)
class GatewayView:
    """A gateway as people see it. What it has never said is None; `skew_us`: its clock minus the receiver's.

    `since_us`: of its last noted change of presence. `host`: of the installation that spoke last. `fenced`: why one of
    several installations is fenced, or empty.
    """

    plant: Plant
    thing: str
    registered: bool
    presence: Presence
    reason: str
    since_us: int | None
    host: str
    fenced: str
    alive_us: int | None
    version: str
    uptime_s: int | None
    queued: int | None
    queued_bytes: int | None
    limit_bytes: int | None
    oldest_s: int | None
    full_in_s: int | None
    dropped: int | None
    skew_us: int | None
    clock_synchronised: bool | None
    uncertain: int
    corrected: int
    certificate_days_left: int | None
    links: tuple[tuple[str, DeviceLink], ...]


def gateway(row: GatewayRow, now_us: int, listening_since_us: int) -> GatewayView:
    """The gateway now. `listening_since_us`: since when the receiver has been connected to the broker."""
    said = row.heard.status
    health = None if said is None else said.health
    buffer = None if health is None else health.buffer
    speaker = row.speakers.find(row.speakers.speaking)
    return GatewayView(
        plant=row.plant,
        thing=row.thing,
        registered=row.registered,
        presence=presence(row.heard, now_us=now_us, listening_since_us=listening_since_us),
        reason=row.heard.ended,
        since_us=row.since_us,
        host="" if speaker is None else speaker.host,
        fenced=row.speakers.sentence(),
        alive_us=row.heard.alive_us,
        version="" if said is None or said.gateway is None else said.gateway.version,
        uptime_s=None if said is None or said.gateway is None else said.gateway.uptime_sec,
        queued=None if buffer is None else buffer.queued_messages,
        queued_bytes=None if buffer is None else buffer.bytes,
        limit_bytes=None if buffer is None else buffer.limit_bytes,
        oldest_s=None if buffer is None else buffer.oldest_sec,
        full_in_s=None if buffer is None else buffer.full_in_sec,
        dropped=None if said is None else said.dropped_count,
        skew_us=row.heard.skew_us,
        clock_synchronised=None if said is None or said.clock is None else said.clock.synchronised,
        uncertain=row.uncertain,
        corrected=row.corrected,
        certificate_days_left=None if said is None else said.certificate_days_left,
        links=() if said is None else tuple(sorted(said.devices.items())),
    )


def uncertain_times(view: GatewayView) -> str:
    """What is to be said of batches whose times nobody vouches for; empty where there are none."""
    if not view.uncertain:
        return ""
    many = "1 batch has" if view.uncertain == 1 else f"{view.uncertain:,} batches have"
    if view.clock_synchronised is False:
        return (
            f"its clock is not synchronised: {many} uncertain times, and what this boot stamped is corrected once it is"
        )
    return f"{many} uncertain times: it was switched off before its clock was synchronised"


def links_in_short(links: Sequence[tuple[str, DeviceLink]]) -> str:
    """`3 ok, 1 away (plc-4: no answer within 1 s)`: counts, and the reason of the first that is not ok."""
    counts = [(state, sum(link.state == state for _, link in links)) for state in ("ok", "bad", "away", "starting")]
    text = ", ".join(f"{count} {state}" for state, count in counts if count)
    wrong = next(((name, link) for name, link in links if link.state in ("away", "bad") and link.reason), None)
    return text if wrong is None else f"{text} ({wrong[0]}: {wrong[1].reason})"
