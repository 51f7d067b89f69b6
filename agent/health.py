"""How each part of the agent is, in words, by the agent's own status. As `status` and `watch` say it. Pure."""

from __future__ import annotations

from agent.findings import Finding, Mark, split
from protocols.program.terminal import ago, size
from protocols.uplink.status import Buffer, DeviceLink, MachineNumbers, Status

FULL_SOON_S = 24 * 3600
WAITS_S = 60
RENEW_DAYS = 30
CONFIRM_LATE_S = 60
"""A batch that waits longer than this for its confirm, with the broker connected, is not merely on its way."""

NOT_TOLD = "delivery is broker: what stands behind it tells nobody whether it stored anything"
LOOK_THERE = "at the receiver: holdfast-cloud status, gateway list, dlq list (is this plant known there?)"


def link(link: str, trouble: str) -> Finding:
    """The connection to the broker. `link`: one phrase; `trouble`: one sentence or empty."""
    if trouble:
        sentence, fix = split(trouble.removeprefix("MQTT broker "), first=True)
        return Finding(Mark.BAD, "broker", f"{link}: {sentence}", fix)
    return Finding(Mark.OK if link.startswith("connected") else Mark.BAD, "broker", link)


def buffer(buffer: Buffer, *, is_alive: bool) -> Finding:
    """What waits on disk, and how long there is room."""
    if not is_alive:
        text = f"{buffer.queued_messages} batches lie on disk, {size(buffer.bytes)}; they are sent when it runs again"
        return Finding(Mark.OK, "buffer", text)
    text = f"{buffer.queued_messages} batches wait, {size(buffer.bytes)} of {size(buffer.limit_bytes)}"
    if buffer.oldest_sec is not None:
        text += f"; oldest unsent {ago(buffer.oldest_sec)}"
    if buffer.full_in_sec is None:
        return Finding(Mark.OK, "buffer", text)
    text += f"; at this rate {ago(buffer.full_in_sec)} left"
    is_filling = (buffer.oldest_sec or 0) >= WAITS_S  # otherwise that is how long an outage might last
    return Finding(Mark.NOTE if is_filling and buffer.full_in_sec < FULL_SOON_S else Mark.OK, "buffer", text)


def lost(said: Status) -> Finding | None:
    """What was given up; None where nothing was."""
    if not (said.dropped_count or said.dropped_readings):
        return None
    text = (
        f"{said.dropped_count:,} batches were given up unconfirmed, {said.dropped_readings:,} readings in all; the "
        "receiver is told which"
    )
    return Finding(Mark.NOTE, "lost", text)


def certificate(days: int) -> Finding:
    """For how many days the gateway's certificate is still valid."""
    if days < 0:
        return Finding(Mark.BAD, "certificate", f"expired {-days} days ago", "renew broker.tls.cert_file")
    mark = Mark.NOTE if days < RENEW_DAYS else Mark.OK
    return Finding(mark, "certificate", f"valid for {days} more days", "renew it in time" if mark is Mark.NOTE else "")


def clock(said: Status) -> Finding | None:
    """A clock that is not synchronised, and what becomes of the times that it stamps."""
    clock = said.clock
    if clock is None or clock.synchronised is not False:
        return None
    if not clock.span:
        return Finding(Mark.NOTE, "clock", "not synchronised any more, but right since it was", "timedatectl status")
    text = f"not synchronised: {clock.marked:,} batches since the start are marked, and corrected once it is"
    return Finding(Mark.NOTE, "clock", text, "timedatectl set-ntp true")


def device(name: str, device: DeviceLink, now_s: float) -> Finding:
    """One device's link."""
    since = ago(now_s - device.since / 1000)
    match device.state:
        case "ok":
            return Finding(Mark.OK, name, f"ok for {since}, {device.readings:,} readings")
        case "starting":
            return Finding(Mark.NOTE, name, f"starting for {since}")
    sentence, fix = split(device.reason.removeprefix(f"{name} "))
    colon = "" if sentence.startswith("(") else ":"  # where it is comes first, in brackets
    return Finding(Mark.BAD, name, f"{device.state} for {since}{colon} {sentence}", fix)


def confirmed(buffer: Buffer, numbers: MachineNumbers | None = None) -> Finding:
    """Whether the receiver confirms what the broker took. `numbers`: one machine's, to begin with."""
    sent = "" if numbers is None else f"sent up to number {numbers.sent_seq:,} of {numbers.last_seq:,}; "
    if buffer.oldest_sec is None or buffer.oldest_sec < CONFIRM_LATE_S:
        return Finding(Mark.OK, "receiver", f"{sent}{waiting(buffer)}")
    text = f"{sent}{waiting(buffer)}, and the oldest has had no confirm for {ago(buffer.oldest_sec)}"
    return Finding(Mark.BAD, "receiver", text, LOOK_THERE)


def waiting(buffer: Buffer) -> str:
    """How much waits for its confirm."""
    if not buffer.queued_messages:
        return "everything is confirmed"
    return f"{buffer.queued_messages:,} batches ({size(buffer.bytes)}) wait for their confirm"
