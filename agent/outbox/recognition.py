"""Whether an outbox that is opened is still itself, whole, and the only one of its kind; and what follows of it.

A copy, one that was put back from a backup, and one whose machine was booted begin new epochs, because their numbers
may be in use (identity.py). So does one whose database is lost, in whole or in part. If its passport then proves that
this is the original, it answers for what is destroyed: the epochs are marked as damaged, so that what the receiver
lacks of them is declared dropped (agent/uplink/former.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from agent.outbox.contract import Lane
from agent.outbox.identity import Signs, differences
from agent.outbox.lanes import Lanes, new_epoch
from agent.outbox.passport import Passport
from agent.outbox.rows import DAMAGED_MAX, Whole
from agent.outbox.tally import Count


class Here(NamedTuple):
    """What there is now. `marker`: the one in its place. `made`: the one that is to take it. `boot`: which it is."""

    marker: str | None
    made: str | None
    signs: Signs
    boot: str


class Finding(NamedTuple):
    """`copied`: in words, why this may be a copy. `is_booted`: the machine was, since. `lost`: the passport of the
    original, whose database has lost its end, its main record or everything.

    `epochs`: of former lives, in which numbers were given nowhere else. `counted`: transactions and sessions.
    """

    copied: list[str]
    is_booted: bool
    lost: Passport | None
    epochs: tuple[str, ...]
    counted: Count


def recognise(whole: Whole, passport: Passport | None, tally: Count, here: Here) -> Finding:
    """`whole`: of the database as it was opened, without signs where it is new, or its main record is. Pure."""
    known = passport if passport is not None and passport.proves(here.marker, here.signs) else None
    counted = Count(*map(max, tally, known.counted if known else Count()))
    before = whole.signs
    is_behind = whole.commits < counted.commits or here.marker not in before.get("marker", ())
    if known is not None and (not before or (whole.id == known.id and is_behind)):
        return Finding([], is_booted=False, lost=known, epochs=(), counted=counted)
    copied = differences(before, here.signs)
    if "marker" in before and here.marker not in before["marker"]:
        copied.append("a copy or a restored backup")
    if before and not copied and whole.commits < tally.commits:  # its numbers were given, and would be given again
        copied.append("an earlier state of it")
    is_booted = "marker" in before and (not here.boot or before.get("boot") != [here.boot])
    is_same = known is not None and whole.id == known.id and not copied
    return Finding(copied, is_booted, lost=None, epochs=known.epochs if known and is_same else (), counted=counted)


def settle(lanes: Lanes, finding: Finding, here: Here, registered: Iterable[tuple[Lane, int]]) -> None:
    """In a transaction: this is from now on the outbox that is here. `registered`: lanes with their priority."""
    whole, lost = lanes.touch_whole(), finding.lost
    kept = lost.signs if lost else {} if finding.copied else whole.signs
    markers = [one for one in (here.marker, here.made) if one is not None]
    whole.signs = {**kept, **here.signs, "marker": markers, "boot": [here.boot]}
    whole.commits = max(whole.commits, finding.counted.commits)  # wherever the files beside it are from
    whole.session = max(whole.session, finding.counted.session)
    if lost or finding.copied or finding.is_booted:
        lanes.fork()
    if finding.copied:
        whole.id = new_epoch()
        whole.damaged = ()  # what was damaged may be the copy, and what it was copied from still go on
    if lost:
        whole.id = lost.id
        whole.damaged = tuple(dict.fromkeys((*whole.damaged, *lost.damaged, *lost.epochs)))[-DAMAGED_MAX:]
        for name, priority in registered:
            if name.epoch in whole.damaged and name not in lanes.states:
                lanes.make_lane(name, priority)


def told(finding: Finding, whole: Whole, *, is_new: bool) -> str:
    """In words, what was found of a database as it was opened; empty: nothing to be alarmed about. Pure.

    `is_new`: nothing is in it, in a place that had one before.
    """
    lost = "what the receiver lacks of what it gave is declared as destroyed" if finding.lost else ""
    if finding.copied:
        return f"this is {' and '.join(finding.copied)}; what is in it keeps its numbers, and a new epoch begins"
    if is_new:
        unproved = "nothing is declared, because nothing proves that no copy of it is alive"
        return (
            "the outbox's database was gone or empty: what was in it is lost, and a new epoch begins; "
            f"{lost or unproved}"
        )
    if lost and not whole.signs:
        return f"the outbox's main record is lost; {lost}"
    if lost:
        count = max(1, finding.counted.commits - whole.commits)
        return f"the outbox's database has lost its end (transactions: {count} or more); a new epoch begins, and {lost}"
    return ""
