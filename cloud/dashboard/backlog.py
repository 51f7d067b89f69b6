"""Whether a gateway's backlog shrinks, and when it will be gone: from what its last heartbeats said. Pure.

A backlog is what has waited for longer than BACKLOG_S: the few batches whose confirm is on its way are none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cloud.dashboard.text import figure
from cloud.store.contract import GatewayRow
from protocols.uplink.topics import GatewayTopic

BACKLOG_S = 60
WINDOW_S = 120.0
SPAN_S_MIN = 5.0


class Sample(NamedTuple):
    """At a heartbeat (the receiver's clock, microseconds since 1970) so many batches waited."""

    at_us: int
    queued: int


Seen = Mapping[GatewayTopic, Sequence[Sample]]


@dataclass(frozen=True, slots=True)
class Trend:
    """`per_s`: how many batches fewer wait each second, negative where there are more. `left_s`: until none waits."""

    per_s: float
    left_s: int | None


def noted(before: Seen, rows: Sequence[GatewayRow]) -> Seen:
    """With what the gateways' last heartbeats say; of those that have a backlog only."""
    found = {}
    for row in rows:
        topic = GatewayTopic(row.plant, row.thing)
        said = row.heard.status
        if row.heard.alive_us is None or said is None or said.health is None:
            continue
        buffer = said.health.buffer
        if buffer.oldest_sec is not None and buffer.oldest_sec >= BACKLOG_S:
            found[topic] = _with(before.get(topic, ()), Sample(row.heard.alive_us, figure(buffer.queued_messages)))
    return found


def _with(samples: Sequence[Sample], now: Sample) -> Sequence[Sample]:
    if samples and samples[-1].at_us >= now.at_us:
        return samples
    return (*(one for one in samples if now.at_us - one.at_us <= WINDOW_S * 1_000_000), now)


def trend(samples: Sequence[Sample]) -> Trend | None:
    """Over the window; None until it has been watched for SPAN_S_MIN."""
    if not samples:
        return None
    first, last = samples[0], samples[-1]
    span_s = (last.at_us - first.at_us) / 1_000_000
    if span_s < SPAN_S_MIN:
        return None
    per_s = (first.queued - last.queued) / span_s
    return Trend(per_s, round(last.queued / per_s) if per_s > 0 else None)
