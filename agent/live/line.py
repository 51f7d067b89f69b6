"""The line from the PLC to the receiver, and how each of its stations is, in words. Pure.

    PLC → driver → outbox → broker → receiver

A station behind one that stands still is not blamed for it: it is `unknown`, and says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent import health
from agent.findings import Finding, Mark, split
from agent.uplink.trouble import Kind
from protocols.uplink.status import DeviceLink, Status

REASONS_MAX = 20
NOTHING_STORED = "no agent runs: nothing is stored or sent"
_OF_RECEIVER = (Kind.FENCED, Kind.TWINNED, Kind.UNCONFIRMED)


@dataclass(frozen=True, slots=True)
class Standing:
    """How the agent is at one moment. `status` None: nothing is stored or sent, only devices are read.

    `disk`: why the outbox takes nothing, or cannot tend to itself, or empty. `troubles`: the uplink's.
    """

    status: Status | None
    is_connected: bool = False
    protocol: str = ""
    is_confirmed: bool = True
    troubles: Mapping[Kind, str] = field(default_factory=dict)
    disk: str = ""


@dataclass(frozen=True, slots=True)
class Polled:
    """What the devices do, all together. `wrong`: device → tags without a good value."""

    devices: Mapping[str, DeviceLink]
    tags: int
    wrong: Mapping[str, int]
    requests_per_s: float | None
    readings_per_s: float | None


@dataclass(frozen=True, slots=True)
class Station:
    """`mark` None: nothing can be said. `text`: two or three words, `detail`: a sentence or nothing.

    `reasons`: what is wrong, and what to do.
    """

    name: str
    mark: Mark | None
    text: str
    detail: str = ""
    reasons: Sequence[Finding] = ()

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "name": self.name,
            "mark": None if self.mark is None else self.mark.value,
            "text": self.text,
            "detail": self.detail,
            "reasons": [
                {"mark": one.mark.value, "subject": one.subject, "text": one.text, "fix": one.fix}
                for one in self.reasons
            ],
        }


def line(polled: Polled, standing: Standing, now_s: float) -> list[Station]:
    """All stations, in the order in which a value passes them."""
    return [
        _plc(polled, now_s),
        _driver(polled, now_s),
        _outbox(standing),
        _broker(standing),
        _receiver(standing),
    ]


def _plc(polled: Polled, now_s: float) -> Station:
    findings = {name: health.device(name, one, now_s) for name, one in polled.devices.items() if one.state == "away"}
    starting = sum(one.state == "starting" for one in polled.devices.values())
    count = len(polled.devices)
    well = count - len(findings) - starting
    text = f"{well} of {count} {'answers' if well == 1 else 'answer'}"
    if findings:
        return Station("PLC", Mark.BAD, text, reasons=_first(findings))
    return Station("PLC", Mark.NOTE if starting else Mark.OK, text, f"{starting} not read yet" if starting else "")


def _driver(polled: Polled, now_s: float) -> Station:
    states = {one.state for one in polled.devices.values()}
    if states <= {"away", "starting"}:
        return Station("driver", None, "nothing to read", "no device answers")
    wrong = sum(polled.wrong[name] for name, one in polled.devices.items() if one.state in ("ok", "bad"))
    findings = {name: health.device(name, one, now_s) for name, one in polled.devices.items() if one.state == "bad"}
    asked = "" if polled.requests_per_s is None else f"{polled.requests_per_s:,.1f} requests/s"
    if wrong:
        text = f"{wrong:,} {'tag fails' if wrong == 1 else 'tags fail'}"
    else:
        text = "reading" if polled.readings_per_s is None else f"{polled.readings_per_s:,.0f} values/s"
    return Station("driver", Mark.BAD if findings else Mark.OK, text, asked, _first(findings))


def _outbox(standing: Standing) -> Station:
    status = standing.status
    if status is None or status.health is None:
        return Station("outbox", None, "not used", NOTHING_STORED)
    buffer = status.health.buffer
    said = health.buffer(buffer, is_alive=True)
    reasons = [Finding(Mark.BAD, "outbox", *split(standing.disk))] if standing.disk else []
    if said.mark is not Mark.OK:
        reasons.append(said)
    reasons += [found for found in (health.lost(status), health.clock(status)) if found is not None]
    return Station("outbox", _worst(reasons), f"{buffer.queued_messages:,} wait", said.text, reasons)


def _broker(standing: Standing) -> Station:
    if standing.status is None:
        return Station("broker", None, "not used", NOTHING_STORED)
    said = [sentence for kind, sentence in sorted(standing.troubles.items()) if kind not in _OF_RECEIVER]
    if not standing.is_connected:
        reasons = [health.link("not connected", sentence) for sentence in said]
        return Station("broker", Mark.BAD if reasons else Mark.NOTE, "not connected", reasons=reasons)
    link = f"connected, {standing.protocol}"
    reasons = [health.link(link, sentence) for sentence in said]
    return Station("broker", Mark.BAD if reasons else Mark.OK, "connected", standing.protocol, reasons)


def _receiver(standing: Standing) -> Station:
    if standing.status is None or standing.status.health is None:
        return Station("receiver", None, "not used", NOTHING_STORED)
    if not standing.is_connected:
        return Station("receiver", None, "unknown", "it cannot be told while the broker is away")
    if not standing.is_confirmed:
        return Station("receiver", None, "unknown", health.NOT_TOLD)
    said = [sentence for kind, sentence in sorted(standing.troubles.items()) if kind in _OF_RECEIVER]
    found = health.confirmed(standing.status.health.buffer)
    reasons = [Finding(Mark.BAD, "receiver", *split(sentence, first=True)) for sentence in said]
    if not reasons and found.mark is Mark.BAD:
        reasons = [found]
    return Station("receiver", _worst(reasons), "does not confirm" if reasons else "confirms", found.text, reasons)


def _first(findings: Mapping[str, Finding]) -> list[Finding]:
    shown = list(findings.values())[:REASONS_MAX]
    if len(findings) > REASONS_MAX:
        more = len(findings) - REASONS_MAX
        shown.append(Finding(Mark.BAD, "…", f"and {more} more devices", "holdfast status"))
    return shown


def _worst(reasons: Sequence[Finding]) -> Mark:
    marks = {reason.mark for reason in reasons}
    return next((mark for mark in (Mark.BAD, Mark.NOTE) if mark in marks), Mark.OK)
