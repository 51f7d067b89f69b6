"""The table at the end."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from tests.faults.stage import Outcome

HEAD = ("row", "injections", "readings", "lost", "doubled", "declared", "in hand", "destroyed", "recovery s", "")


def table(outcomes: Iterable[Outcome]) -> str:
    """As Markdown, which reads well on a terminal, too. In hand: and how old. Recovery: median and worst."""
    lines = [list(HEAD), *(_line(outcome) for outcome in outcomes)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(HEAD))]
    rule = ["-" * width if at in (0, len(HEAD) - 1) else "-" * (width - 1) + ":" for at, width in enumerate(widths)]
    return "\n".join("| " + " | ".join(_cells(line, widths)) + " |" for line in [lines[0], rule, *lines[1:]])


def _cells(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [
        cell.ljust(width) if at in (0, len(HEAD) - 1) else cell.rjust(width)
        for at, (cell, width) in enumerate(zip(line, widths, strict=True))
    ]


def _line(outcome: Outcome) -> list[str]:
    if outcome.skipped:
        return [outcome.row, *[""] * (len(HEAD) - 2), f"SKIPPED: {outcome.skipped}"]
    verdict = outcome.verdict
    counts = (outcome.injections, verdict.readings, verdict.lost, verdict.doubled, verdict.declared)
    in_hand = f"{verdict.in_hand} ({verdict.in_hand_s_max:.1f} s)" if verdict.in_hand else "0"
    times = outcome.recoveries
    recovery = f"{statistics.median(times):.1f} / {max(times):.1f}" if times else "–"
    word = "FAILED" if outcome.failed else "ok"
    return [outcome.row, *(f"{count:,}" for count in counts), in_hand, f"{verdict.destroyed:,}", recovery, word]


def details(outcome: Outcome) -> str:
    """What else there is to say of a row; empty where it is nothing."""
    said = [f"  fault: {fault}" for fault in outcome.verdict.faults] + [f"  note: {note}" for note in outcome.notes]
    if outcome.failed:
        said.append(f"  again: python -m tests.faults --row {outcome.row} --seed {outcome.seed}")
    return "\n".join([f"{outcome.row} ({outcome.seconds:.0f} s, seed {outcome.seed})", *said]) if said else ""
