"""An operator's word on numbers that nobody is left to declare: their outbox was deleted, or burnt. Pure.

Only what is missing in an epoch that its gateway's last status does not name any more can be written off: of any other
the gateway itself tells what became of it, and it would let go of what it hears is dropped. An epoch that a batch was
stored in after that status is not over, as far as anybody knows. What arrives all the same is stored, and stored
covers dropped.
"""

from __future__ import annotations

from collections.abc import Sequence

from cloud.completeness import Statement, statement
from cloud.store.contract import Ledger, Loss, StoreError
from protocols.uplink import ranges
from protocols.uplink.ranges import Range

REASON = "written off by the operator"


def reason(text: str) -> str:
    """What the ledger says. `text`: the operator's own, or empty."""
    return f"{REASON}: {text}" if text else REASON


def abandoned(machine: str, ledgers: Sequence[Ledger], epoch: str | None = None) -> list[Statement]:
    """Those with numbers to write off; of all epochs, or of one. Raises StoreError where there is none, with why."""
    meant = [ledger for ledger in ledgers if epoch in (None, ledger.epoch)]
    if not meant:
        there = f" has no epoch {epoch}" if epoch is not None else " has no numbers"
        raise StoreError(f"machine {machine}{there}; see what there is with: holdfast-cloud ledger {machine}")
    missing = [(ledger, found) for ledger in meant if (found := statement(ledger)).missing]
    left = [found for _, found in missing if found.abandoned]
    if not missing:
        where = "" if epoch is None else f" in epoch {epoch or '-'}"
        raise StoreError(f"nothing is missing of machine {machine}{where}; nothing was changed.")
    if not left:
        raise StoreError(_answered(machine, missing[-1][0]))
    return left


def losses(machine: str, ledgers: Sequence[Ledger], epoch: str, numbers: Sequence[Range], why: str) -> list[Loss]:
    """What is to be dropped: those of these numbers that are missing now. Raises StoreError, as `abandoned`."""
    ledger = next((ledger for ledger in ledgers if ledger.epoch == epoch), None)
    if ledger is None or not (found := statement(ledger)).missing:
        return []  # it has arrived since somebody looked
    if not found.abandoned:
        raise StoreError(_answered(machine, ledger))
    return [Loss(first, last, why) for first, last in ranges.common(found.missing_ranges, numbers)]


def _answered(machine: str, ledger: Ledger) -> str:
    where = f"epoch {ledger.epoch or '-'} of machine {machine}"
    if ledger.named:
        return (
            f"{where} is named by its gateway's last status, and the gateway answers for it itself: wait for it, or,"
            " if it is gone for good, start its successor under the same name with an empty data_dir, and try again"
        )
    return f"{where} was sent in since its gateway's last status; try again when the next one has come, in 10 s"
