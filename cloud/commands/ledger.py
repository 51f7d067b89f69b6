"""`holdfast-cloud ledger`: the statement of completeness, per machine and epoch."""

from __future__ import annotations

import re
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloud.commands.options import Assignments, Config, Json, name, now_us, opened
from protocols.program.console import USAGE, Failure, table
from protocols.program.terminal import print_json, tell

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloud.completeness import Statement
    from cloud.store.contract import Loss, Store
    from protocols.uplink.topics import MachineTopic

RANGES_SHOWN_MAX = 20
_UNITS_S = {"m": 60, "h": 3600, "d": 86_400}

Found = tuple["MachineTopic", "Statement", "Sequence[Loss]"]


def ledger(
    machine: Annotated[
        str | None, typer.Argument(metavar="[MACHINE]", help="NAME, or TENANT/PROVINCE/PLANT/NAME; default: all.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="WHEN", help="From then on: 2026-11-30, 2026-11-30T08:00, 24h, 7d."),
    ] = None,
    config: Config = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> int:
    """State which batches are stored, in flight, dropped or missing.

    The exit code is 1 where something is missing or was dropped. What came from WHEN on begins with the first live
    batch stored then, among the events that are kept.
    """
    from cloud.completeness import total

    with opened(config, assignments) as store:
        since_us = None if since is None else _moment(since, now_us())
        found = list(_statements(store, _machines(store, machine), since_us))
    whole = total(one for _, one, _ in found)
    if as_json:
        print_json({"total": asdict(whole), "complete": whole.complete, "epochs": [_as_json(*one) for one in found]})
    elif not found:
        typer.echo("Nothing was stored since then." if since else "No machine has sent anything yet.")
    else:
        _tell(found)
        typer.echo(f"{whole}, {whole.readings:,} readings" if since is None else str(whole))
    return 0 if whole.complete else 1


def _tell(found: Sequence[Found]) -> None:
    table(
        ["machine", "plant", "epoch", ">batches", ">stored", ">in flight", ">dropped", ">missing", ">readings"],
        [
            (
                *(topic.machine, str(topic.plant), one.epoch or "-", one.batches),
                *(one.stored, one.in_flight, one.dropped, one.missing, one.readings),
            )
            for topic, one, _ in found
        ],
        fold=True,
    )
    for topic, one, losses in found:
        lines = [f"missing {shown_range(*span)}" for span in one.missing_ranges]
        lines += [f"dropped {shown_range(loss.first, loss.last)}: {loss.reason}" for loss in losses]
        for line in lines[:RANGES_SHOWN_MAX]:
            tell(f"  {topic.machine} {one.epoch or '-'}: {line}")
        if len(lines) > RANGES_SHOWN_MAX:
            typer.echo(f"  {topic.machine}: … and {len(lines) - RANGES_SHOWN_MAX:,} more ranges; all of them: --json")
    left = dict.fromkeys(topic for topic, one, _ in found if one.missing and one.abandoned)
    for topic in left:
        count = sum(one.missing for other, one, _ in found if other == topic and one.abandoned)
        tell(f"  {topic.machine}: no gateway answers for {count:,} of the missing; if they are gone for good:")
        tell(f"    holdfast-cloud machine write-off {topic.plant} {topic.machine}")


def _as_json(topic: MachineTopic, one: Statement, losses: Sequence[Loss]) -> dict[str, Any]:
    return {
        "plant": str(topic.plant),
        "machine": topic.machine,
        **asdict(one),
        "batches": one.batches,
        "dropped_ranges": [asdict(loss) for loss in losses],
    }


def shown_range(first: int, last: int) -> str:
    return f"{first:,}" if first == last else f"{first:,} to {last:,} ({last - first + 1:,})"


def _machines(store: Store, machine: str | None) -> Iterator[MachineTopic]:
    """Those that are meant. Raises Failure where there is none."""
    from protocols.uplink.topics import MachineTopic

    there = [MachineTopic(row.plant, row.machine) for row in store.machines()]
    if machine is None:
        yield from there
        return
    name(machine.rpartition("/")[2], "machine")
    meant = [topic for topic in there if machine in (topic.machine, f"{topic.plant}/{topic.machine}")]
    if not meant:
        raise Failure(f"there is no machine {machine}; see them with: holdfast-cloud machine list", USAGE)
    yield from meant


def _statements(store: Store, machines: Iterator[MachineTopic], since_us: int | None) -> Iterator[Found]:
    from cloud.completeness import statement

    for topic in machines:
        for one in store.ledgers(topic):
            first: int | None = 1
            if since_us is not None:
                first = store.first_since(topic, one.epoch, since_us)
            if first is not None:
                losses = [loss for loss in store.losses(topic, one.epoch) if loss.last >= first]
                yield topic, statement(one, first), losses


def _moment(text: str, now: int) -> int:
    """Microseconds since 1970. Raises Failure."""
    found = re.fullmatch(r"([0-9]{1,6})([mhd])", text)
    if found is not None:
        return now - int(found[1]) * _UNITS_S[found[2]] * 1_000_000
    try:
        return round(datetime.fromisoformat(text).timestamp() * 1_000_000)
    except (ValueError, OverflowError):
        raise Failure(f"{text!r:.60} is no time; write 2026-11-30, 2026-11-30T08:00, 24h or 7d", USAGE) from None
