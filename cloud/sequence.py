"""The account made of a machine's numbers: what a confirm says, and the ledger's spans. Pure.

The sets of numbers are protocols/uplink/ranges.py; here is what the receiver makes of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from itertools import islice
from typing import NamedTuple

from cloud.speakers import Speakers
from cloud.store.contract import Ledger, Told
from protocols.uplink.confirm import MISSING_RANGES_MAX, MachineConfirm
from protocols.uplink.ranges import minus, missing, through, union
from protocols.uplink.status import OTHERS_MAX, MachineNumbers, Status


def confirm(ledger: Ledger) -> MachineConfirm:
    """The account that goes to the gateway.

    What was declared dropped counts as there: nobody waits for it. Where there are more gaps than a confirm can name,
    `highest` stays below the first unnamed one: a gateway takes what lies at or below `highest`, and is not named as
    missing, as stored.
    """
    there = union(ledger.stored, ledger.dropped)
    gaps = missing(there, max(ledger.known, there[-1][1] if there else 0))
    highest = ledger.stored[-1][1] if ledger.stored else 0
    if len(gaps) > MISSING_RANGES_MAX:
        highest = min(highest, gaps[MISSING_RANGES_MAX][0] - 1)
    named = list(islice(gaps, MISSING_RANGES_MAX))
    return MachineConfirm(epoch=ledger.epoch, through=through(there), highest=highest, missing=named)


LATELY_US = 600_000_000
"""What was stored in an epoch that its gateway's status does not name is confirmed for so long."""

BACKLOG_S = 30
"""A gateway whose oldest unconfirmed batch is older than this has a backlog: confirms are never so far apart."""


class Lane(NamedTuple):
    """A machine's epoch that a gateway sends in. `lately`: something was stored in it not long ago."""

    machine: str
    ledger: Ledger
    lately: bool


def told(lanes: Sequence[Lane], epoch: str, oldest_s: int | None, speakers: Speakers) -> Told:
    """What a gateway is told of its lanes, which come newest first. `epoch`, `oldest_s`: as its last status says."""
    machines: dict[str, MachineConfirm] = {}
    others: dict[str, list[MachineConfirm]] = {}
    pending = oldest_s is not None and oldest_s > BACKLOG_S
    for name in sorted({lane.machine for lane in lanes}):
        own = [lane for lane in lanes if lane.machine == name]
        named = [lane for lane in own if lane.ledger.named]
        named += [lane for lane in own if lane.lately and not lane.ledger.named]
        first = next((lane for lane in own if epoch and lane.ledger.epoch == epoch), (named or own)[0])
        machines[name] = confirm(first.ledger)
        more = [confirm(lane.ledger) for lane in named if lane is not first][:OTHERS_MAX]
        if more:
            others[name] = more
        pending |= any(one.missing for one in (machines[name], *more))
    return Told(machines, others, pending, speakers.sentence(), speakers.fenced)


def said(status: Status) -> Iterator[tuple[str, str, MachineNumbers]]:
    """(machine, epoch, numbers) of every lane that a status names."""
    for name, numbers in status.machines.items():
        yield name, status.epoch, numbers
    others: Mapping[str, Mapping[str, MachineNumbers]] = status.others
    for name, of_epochs in others.items():
        for epoch, numbers in of_epochs.items():
            yield name, epoch, numbers


class Fall(Enum):
    """A status says of a lane that fewer numbers were given than its gateway said before."""

    NONE = "it does not"
    OURS = "and the same installation said it: what its outbox gave above is lost there"
    ANOTHERS = "and another installation said it, which may have the rest still"


def fall(before: Status | None, now: Status, machine: str, epoch: str) -> Fall:
    """`before`: the last status of the same gateway that told of its numbers; `now` is not history.

    Within a session a lower number comes late, or twice, because an outbox is opened before the gateway connects.
    """
    if before is None or (before.session, before.instance) == (now.session, now.instance):
        return Fall.NONE
    was, is_now = (_given(status, machine, epoch) for status in (before, now))
    if was is None or is_now is None or is_now >= was:
        return Fall.NONE
    is_same = before.instance == now.instance and before.session < now.session
    return Fall.OURS if is_same else Fall.ANOTHERS


def given(numbers: MachineNumbers) -> int:
    """The last number given, as far as a status says: a stranger's may say that it sent more."""
    return max(numbers.last_seq, numbers.sent_seq)


def _given(status: Status, machine: str, epoch: str) -> int | None:
    of_epochs: Mapping[str, MachineNumbers] = status.others.get(machine, {})
    found = status.machines.get(machine) if status.epoch == epoch else of_epochs.get(epoch)
    return None if found is None else given(found)


class Span(NamedTuple):
    """A stretch of a ledger that keeps why: `dropped` is the gateway's reason, None where the numbers are stored."""

    first: int
    last: int
    dropped: str | None = None


def overlay(spans: Sequence[Span], new: Span) -> list[Span]:
    """The ledger's spans (ascending, none overlapping) with the new one.

    Stored covers dropped, whichever came first. Of numbers declared dropped twice, the first reason stays.
    Neighbours that say the same become one.
    """
    if new.dropped is None:
        kept = [piece for span in spans for piece in _outside(span, new)]
        return _merged(sorted([*kept, new], key=_span_first))
    taken = [(span.first, span.last) for span in spans]
    added = [Span(first, last, new.dropped) for first, last in minus(((new.first, new.last),), taken)]
    return _merged(sorted([*spans, *added], key=_span_first))


def _outside(span: Span, new: Span) -> list[Span]:
    if span.dropped is None:
        return [span]  # both say stored: _merged makes one of them
    below = Span(span.first, min(span.last, new.first - 1), span.dropped)
    above = Span(max(span.first, new.last + 1), span.last, span.dropped)
    return [piece for piece in (below, above) if piece.first <= piece.last]


def _merged(spans: Iterable[Span]) -> list[Span]:
    merged: list[Span] = []
    for span in spans:
        if merged and merged[-1].dropped == span.dropped and span.first <= merged[-1].last + 1:
            merged[-1] = merged[-1]._replace(last=max(merged[-1].last, span.last))
        else:
            merged.append(span)
    return merged


def _span_first(span: Span) -> int:
    return span.first
