"""Presence: is a gateway there, from status, will and silence. Pure: takes values and the time, returns values.

Rules:

1. Session numbers settle every race. A message with an older session than the highest heard changes nothing: a late
   will of a former connection cannot take a live gateway down.
2. Only a live `online` status is a sign of life. A retained message is history: it may fill in what a gateway last
   said, or that it said goodbye, but never that it is there.
3. A goodbye (`offline`, reason `shutdown`) and a will (`offline`, reason `unexpected_disconnect`) end their session.
4. SILENCE_S without a sign of life: silent, whatever the broker believes.
5. A receiver that has itself listened for less than SILENCE_S knows nothing yet of a gateway that it has not heard.
6. A third party's gateway may have no session numbers (0): its messages count in the order of arrival.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from protocols.uplink.status import REASON_SHUTDOWN, SILENCE_S, Status


class Presence(Enum):
    """The word, with a shape and a colour, so that nobody depends on the colour."""

    ONLINE = ("online", "●", "green")
    STOPPED = ("stopped", "■", "grey")  # a planned goodbye
    LOST = ("lost", "▲", "red")  # the broker sent its will
    SILENT = ("silent", "◆", "amber")  # connected, perhaps, but nothing heard
    UNKNOWN = ("unknown", "○", "grey")  # never heard, or the receiver has not listened long enough

    @property
    def word(self) -> str:
        return self.value[0]

    @property
    def shape(self) -> str:
        return self.value[1]

    @property
    def colour(self) -> str:
        return self.value[2]


@dataclass(frozen=True, slots=True)
class Heard:
    """What is known of one gateway. Times are the receiver's clock, microseconds since 1970.

    `alive_us`: the last sign of life. `session`: the highest heard. `ended`: '' while that session lasts, otherwise
    the reason of its end, at `ended_us`. `status`: the last `online` or goodbye status in full. `skew_us`: the
    gateway's clock minus the receiver's at the last sign of life (with the message's travel in it).
    """

    alive_us: int | None = None
    session: int = 0
    ended: str = ""
    ended_us: int | None = None
    status: Status | None = None
    skew_us: int | None = None


def is_history(heard: Heard, status: Status, *, retained: bool) -> bool:
    """Whether this message was overtaken by what is known.

    Sessions rise within one installation and epoch. A live `online` of another one, which may count from below (a new
    disk, or one that was set back, and a clock that is not set yet), begins anew. So does one after a will of a session
    of which nothing else was heard: whose that was is not known, and a broker that was put back to an earlier state
    says old ones again.
    """
    if status.session >= heard.session:
        return False
    before = heard.status
    is_another = (
        before is None
        or before.session != heard.session
        or _differ(before.instance, status.instance)
        or _differ(before.epoch, status.epoch)
    )
    return retained or status.state == "offline" or not is_another


def _differ(one: str, other: str) -> bool:
    """As far as both are known."""
    return bool(one and other) and one != other


def hear(heard: Heard, status: Status, *, retained: bool, received_us: int) -> Heard:
    """What is known after this message."""
    if is_history(heard, status, retained=retained):
        return heard
    newer = status.session != heard.session
    if status.state == "offline":
        if heard.ended and not newer:
            return heard
        said = status if status.gateway is not None else heard.status
        return replace(
            heard, session=status.session, ended=status.reason or "offline", ended_us=received_us, status=said
        )
    if retained:
        # History: it may tell more than we know, but not that the gateway is there now, nor undo its end.
        if newer:
            return replace(heard, session=status.session, ended="", ended_us=None, status=status)
        return replace(heard, status=status) if heard.status is None else heard
    if heard.ended and not newer and status.session:
        return heard  # overtaken by its own session's end
    skew_us = status.timestamp * 1000 - received_us
    return Heard(alive_us=received_us, session=status.session, status=status, skew_us=skew_us)


def presence(heard: Heard, *, now_us: int, listening_since_us: int) -> Presence:
    """The state of a gateway now. `listening_since_us`: since when this receiver has been connected to the broker."""
    if heard.ended:
        return Presence.STOPPED if heard.ended == REASON_SHUTDOWN else Presence.LOST
    silence_us = int(SILENCE_S * 1_000_000)
    if heard.alive_us is not None and now_us - heard.alive_us <= silence_us:
        return Presence.ONLINE
    if now_us - listening_since_us < silence_us or heard.status is None:
        return Presence.UNKNOWN
    return Presence.SILENT


_SAME_START_US = 2_000_000  # uptimes are whole seconds


def came(before: Heard, noted: str, now: Heard) -> str:
    """Why a gateway is online, for people. `noted`: what it was before, empty where it was never heard.

    A crash and a broken line both end in a will, or in silence; afterwards the program's own age tells which it was.
    """
    if not noted:
        return "heard for the first time"
    said = f"after it was {noted}"
    started_us, restarted_us = _started_us(before), _started_us(now)
    if noted == Presence.STOPPED.word or started_us is None or restarted_us is None:
        return said
    if abs(restarted_us - started_us) <= _SAME_START_US:
        return f"{said}: the program ran on, so the line was broken"
    return f"{said}: the program was started anew"


def _started_us(heard: Heard) -> int | None:
    """When the program began, by the receiver's clock."""
    if heard.alive_us is None or heard.status is None or heard.status.gateway is None:
        return None
    return heard.alive_us - heard.status.gateway.uptime_sec * 1_000_000
