"""`holdfast-cloud status`: is the receiver at work, and what is in the database?"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

from cloud.commands.findings import Finding, Mark, say
from cloud.commands.options import Assignments, Config, Json, now_us, opened
from protocols.program.console import ago
from protocols.program.terminal import print_json, progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloud.completeness import Sum
    from cloud.overview import Receiving
    from cloud.store.contract import Totals


def status(config: Config = None, assignments: Assignments = None, as_json: Json = False) -> int:
    """Say whether the receiver is running, and count what is stored.

    The exit code is 0 where all is well, and 1 where something wants attention (a line with ✗).
    """
    from cloud import overview
    from cloud.completeness import statement, total
    from protocols.uplink.topics import MachineTopic

    with opened(config, assignments) as store, progress("counting"):
        now = now_us()
        receiving = overview.receiving(store.receiver(), now)
        as_of, since = (now, now) if receiving is None else (receiving.as_of_us, receiving.listening_since_us)
        views = [overview.gateway(row, as_of, since) for row in store.gateways()]
        rows = store.machines()
        topics = [MachineTopic(row.plant, row.machine) for row in rows]
        account = total(statement(ledger) for topic in topics for ledger in store.ledgers(topic))
        plants, waiting, totals = len(store.plants()), len(store.waiting()), store.totals()
    gateways = Counter(view.presence.word for view in views)
    machines = Counter(row.state for row in rows)
    findings = [
        _receiver(receiving, now),
        _plants(plants),
        _gateways(gateways, [view.thing for view in views if view.fenced]),
        Finding(_mark(machines, "approved"), "machines", _counted(machines)),
        _stored(totals),
        _ledger(account),
        _letters(totals.dead_letters, waiting),
    ]
    code = int(any(finding.mark is Mark.BAD for finding in findings))
    if as_json:
        print_json(
            {
                "receiver": {
                    "running": receiving is not None and receiving.running,
                    "connected": receiving is not None and receiving.connected,
                    "as_of_us": None if receiving is None else receiving.as_of_us,
                },
                "plants": plants,
                "gateways": gateways,
                "machines": machines,
                "messages": totals.events,
                "readings": totals.readings,
                "repeated": totals.repeated,
                "ledger": asdict(account),
                "fenced": [view.thing for view in views if view.fenced],
                "ok": not code,
                "dead_letters": {"kept": totals.dead_letters, "waiting": waiting},
            }
        )
    else:
        say(findings)
    return code


def _receiver(receiving: Receiving | None, now: int) -> Finding:
    if receiving is None:
        return Finding(Mark.NOTE, "receiver", "none has run on this database yet", "holdfast-cloud run")
    if not receiving.running:
        silence = ago((now - receiving.as_of_us) / 1e6)
        return Finding(Mark.BAD, "receiver", f"not running; last at work {silence} ago", "holdfast-cloud run")
    if not receiving.connected:
        return Finding(Mark.BAD, "receiver", "running, but without a connection to the broker", "holdfast-cloud check")
    since = ago((now - receiving.listening_since_us) / 1e6)
    return Finding(Mark.OK, "receiver", f"running, connected to the broker for {since}")


def _plants(count: int) -> Finding:
    if count:
        return Finding(Mark.OK, "plants", f"{count:,}")
    return Finding(Mark.NOTE, "plants", "none yet", "holdfast-cloud tenant add NAME, then plant add")


def _gateways(counts: Counter[str], fenced: Sequence[str]) -> Finding:
    if fenced:
        text = f"{_counted(counts)}; two installations speak as {', '.join(fenced[:5])}"
        return Finding(Mark.BAD, "gateways", text, "holdfast-cloud gateway list")
    if counts["lost"] or counts["silent"]:
        return Finding(Mark.BAD, "gateways", _counted(counts), "holdfast-cloud gateway list")
    return Finding(_mark(counts, "online"), "gateways", _counted(counts))


def _ledger(account: Sum) -> Finding:
    if account.missing:
        return Finding(Mark.BAD, "ledger", str(account), "holdfast-cloud ledger")
    return Finding(Mark.OK if account.complete else Mark.NOTE, "ledger", str(account))


def _stored(totals: Totals) -> Finding:
    repeated = f", {totals.repeated:,} of them repeat the time of another" if totals.repeated else ""
    return Finding(Mark.OK, "stored", f"{totals.readings:,} readings in {totals.events:,} messages{repeated}")


def _letters(kept: int, waiting: int) -> Finding:
    if waiting:
        return Finding(Mark.BAD, "dead letters", f"{waiting:,} wait, {kept:,} are kept", "holdfast-cloud dlq list")
    return Finding(Mark.OK, "dead letters", f"none wait, {kept:,} are kept" if kept else "none")


def _mark(counts: Counter[str], good: str) -> Mark:
    return Mark.OK if counts.total() == counts[good] else Mark.NOTE


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {word}" for word, count in sorted(counts.items())) or "none yet"
