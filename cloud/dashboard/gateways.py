"""A gateway as the page shows it: why it is away, how long an outage may last, and what an operator should see to.

Pure. Sentences are made here, once for all browsers; what they quote was chosen by strangers, and is made plain.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cloud import overview
from cloud.dashboard.backlog import BACKLOG_S, Trend
from cloud.dashboard.text import figure, maybe, plain
from cloud.store.contract import GatewayRow
from protocols.program.terminal import ago, size
from protocols.uplink.presence import Presence
from protocols.uplink.status import REASON_UNEXPECTED, Buffer

LINKS_MAX = 100
SKEW_S_MAX = 2.0
FULL_SOON_S = 24 * 3600
RENEW_DAYS = 30
RENEW_NOW_DAYS = 7

_RED = ("▲", "red")
_AMBER = ("◆", "amber")
_GREEN = ("●", "green")

Note = dict[str, str]


def gateway(row: GatewayRow, view: overview.GatewayView, trend: Trend | None, now_us: int) -> dict[str, Any]:
    """As plain values. `view`: of this row, at `now_us`. `trend`: of its backlog."""
    health = None if row.heard.status is None else row.heard.status.health
    buffer = None if health is None else _bounded(health.buffer)
    return {
        "plant": str(view.plant),
        "thing": view.thing,
        "registered": view.registered,
        "word": view.presence.word,
        "shape": view.presence.shape,
        "colour": view.presence.colour,
        "why": why(view),
        "since_us": _since_us(row, view),
        "host": plain(view.host),
        "alive_us": view.alive_us,
        "version": plain(view.version),
        "queued": maybe(view.queued),
        "queued_bytes": maybe(view.queued_bytes),
        "limit_bytes": maybe(view.limit_bytes),
        "kept_bytes": None if buffer is None else buffer.kept_bytes,
        "oldest_s": maybe(view.oldest_s),
        "full_in_s": maybe(view.full_in_s),
        "budget": [] if buffer is None else budget(buffer, view.presence, _silence_s(view, now_us)),
        "dropped": maybe(view.dropped),
        "skew_us": view.skew_us,
        "clock_synchronised": view.clock_synchronised,
        "uncertain": view.uncertain,
        "corrected": view.corrected,
        "certificate_days_left": maybe(view.certificate_days_left),
        "fenced": plain(view.fenced),
        "notes": [*_notes(row, view), *(() if buffer is None else _buffer_notes(buffer, view.presence, trend))],
        "links": [
            {
                "device": device,
                "machine": link.machine,
                "state": link.state,
                "reason": plain(link.reason),
                "since_us": link.since * 1000 - _ahead_us(view),
            }
            for device, link in view.links[:LINKS_MAX]
        ],
        "links_more": max(0, len(view.links) - LINKS_MAX),
    }


def _bounded(buffer: Buffer) -> Buffer:
    return buffer.model_copy(
        update={
            "queued_messages": figure(buffer.queued_messages),
            "kept_bytes": figure(buffer.kept_bytes),
            "bytes": figure(buffer.bytes),
            "limit_bytes": figure(buffer.limit_bytes),
            "oldest_sec": maybe(buffer.oldest_sec),
            "full_in_sec": maybe(buffer.full_in_sec),
        }
    )


def why(view: overview.GatewayView) -> str:
    """Why it is not there; empty where it is."""
    match view.presence:
        case Presence.ONLINE:
            return ""
        case Presence.STOPPED:
            return "planned stop"
        case Presence.LOST if view.reason == REASON_UNEXPECTED:
            return "its connection broke off: a crash, a power cut or the network"
        case Presence.LOST:
            return f"it went offline: {plain(view.reason)}"
        case Presence.SILENT:
            return "no heartbeat, and no goodbye either: the network, or a program that hangs"
        case Presence.UNKNOWN if view.alive_us is None:
            return "never heard"
        case Presence.UNKNOWN:
            return "not heard yet: the receiver has not listened for long enough"


def _since_us(row: GatewayRow, view: overview.GatewayView) -> int | None:
    """Since when it is what it is."""
    match view.presence:
        case Presence.STOPPED | Presence.LOST:
            return row.heard.ended_us
        case Presence.SILENT | Presence.UNKNOWN:
            return view.alive_us
        case Presence.ONLINE:
            return view.since_us


def _silence_s(view: overview.GatewayView, now_us: int) -> int:
    """For how long it has said nothing."""
    return 0 if view.alive_us is None else max(0, (now_us - view.alive_us) // 1_000_000)


def budget(buffer: Buffer, presence: Presence, silence_s: int) -> list[str]:
    """The outbox in words: what waits, and how long an outage it bears; then what it holds.

    `silence_s`: for so long nothing was heard of it. If it still runs, its outbox has filled further since.
    """
    waits = f"{_many(buffer.queued_messages)} {'waits' if buffer.queued_messages == 1 else 'wait'}"
    lead = waits if buffer.queued_messages else "nothing waits"
    if buffer.full_in_sec is not None and presence is Presence.ONLINE:
        lead += f"; at this rate {ago(buffer.full_in_sec)} left"
    elif buffer.full_in_sec is not None and presence is not Presence.STOPPED:
        left_s = buffer.full_in_sec - silence_s
        lead += f"; if it still runs, {f'about {ago(left_s)} left' if left_s > 0 else 'it is full by now'}"
    parts = [lead]
    if buffer.queued_messages and buffer.oldest_sec is not None:
        parts.append(f"oldest unsent {ago(buffer.oldest_sec)}")
    parts.append(f"{size(buffer.bytes)} of {size(buffer.limit_bytes)}")
    if buffer.kept_bytes:
        parts.append(f"{size(buffer.kept_bytes)} confirmed, still kept")
    if buffer.mode == "memory":
        parts.append("in memory only: a power cut empties it")
    return parts


def _notes(row: GatewayRow, view: overview.GatewayView) -> Iterator[Note]:
    if view.fenced:
        accept = f"holdfast-cloud gateway accept {view.plant} {view.thing}"
        yield _note(_RED, f"{plain(view.fenced)}. If the second is the right one:", accept)
    yield from _certificate(maybe(view.certificate_days_left))
    if view.presence is Presence.ONLINE:
        yield from _clock(view)
    elif view.uncertain:
        yield _note(_AMBER, overview.uncertain_times(view))
    said = row.heard.status
    if said is not None and (said.dropped_count or said.dropped_readings):
        batches, readings = _many(figure(said.dropped_count)), f"{figure(said.dropped_readings):,} readings"
        text = f"it gave up {batches} unconfirmed, {readings} in all; which and why stands with their machines"
        yield _note(_AMBER, text)


def _certificate(days: int | None) -> Iterator[Note]:
    if days is None or days >= RENEW_DAYS:
        return
    if days < 0:
        yield _note(_RED, f"its certificate expired {_days(-days)} ago; renew it, or it cannot connect again")
        return
    left = "its certificate ends today" if days == 0 else f"its certificate ends in {_days(days)}"
    yield _note(_RED if days < RENEW_NOW_DAYS else _AMBER, f"{left}; renew it in time")


def _ahead_us(view: overview.GatewayView) -> int:
    """By how much its clock is wrong, and not merely its messages under way."""
    skew_us = view.skew_us or 0
    return skew_us if abs(skew_us) > SKEW_S_MAX * 1_000_000 else 0


def _clock(view: overview.GatewayView) -> Iterator[Note]:
    skew_s = _ahead_us(view) / 1_000_000
    is_marked = view.uncertain > 0 and view.clock_synchronised is False
    if skew_s:
        far = f"{abs(skew_s):.1f} s" if abs(skew_s) < 100 else ago(abs(skew_s))
        side = "ahead of" if skew_s > 0 else "behind"
        text = f"its clock is {far} {side} the receiver's, and so are its readings' times"
        yield _note(_AMBER, text) if is_marked else _note(_AMBER, f"{text}:", _SET_CLOCK)
    elif view.clock_synchronised is False and not view.uncertain:
        yield _note(_AMBER, "its clock is not synchronised, and may drift:", _SET_CLOCK)
    if is_marked:
        yield _note(_AMBER, f"{overview.uncertain_times(view)}:", _SET_CLOCK)
    elif view.uncertain:
        yield _note(_AMBER, overview.uncertain_times(view))


_SET_CLOCK = "timedatectl set-ntp true"


def _buffer_notes(buffer: Buffer, presence: Presence, trend: Trend | None) -> Iterator[Note]:
    """Of a gateway that is there: what becomes of its backlog. Of one that is not, the state says enough."""
    if presence is not Presence.ONLINE or buffer.oldest_sec is None or buffer.oldest_sec < BACKLOG_S:
        return
    waits = f"{_many(buffer.queued_messages)} of backlog"
    if trend is not None and trend.left_s is not None:
        yield _note(_GREEN, f"catching up: {waits}, {trend.per_s:,.1f} fewer each second, done in about {_time(trend)}")
        return
    known = "" if trend is None else ", more of them each second" if trend.per_s < 0 else ", and none fewer"
    if buffer.full_in_sec is not None and buffer.full_in_sec < FULL_SOON_S:
        yield _note(_RED, f"{waits}{known}; room for {ago(buffer.full_in_sec)} more, then the oldest go unsent")
    elif known:
        yield _note(_AMBER, f"not catching up: {waits}{known}")


def _time(trend: Trend) -> str:
    return ago(max(1, trend.left_s or 0))


def _note(mark: tuple[str, str], text: str, command: str = "") -> Note:
    return {"shape": mark[0], "colour": mark[1], "text": text, "command": command}


def _many(batches: int) -> str:
    return f"{batches:,} batch{'' if batches == 1 else 'es'}"


def _days(number: int) -> str:
    return f"{number} day{'' if number == 1 else 's'}"
