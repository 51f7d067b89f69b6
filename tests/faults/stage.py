"""What a row is, what it gets, and what it gives back."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults import aftermath, oracle
from tests.faults.line import Line, Setup, line
from tests.faults.oracle import Verdict


@dataclass(frozen=True)
class Row:
    """`play` injects and returns a verdict. `full`, `quick`: how many injections in `make faults` and in `make test`;
    0: not there. `needs`: each says why this machine cannot do it, or nothing.

    `dead_letters`, `exits`: where the fault itself must cause them. `destroys`: how it destroys an outbox, so that an
    operator may have to write off what nobody can declare any more; elsewhere there must be nothing to write off.
    """

    name: str
    what: str
    play: Callable[[Stage], Awaitable[Verdict]]
    full: int
    quick: int = 0
    needs: tuple[Callable[[], str], ...] = ()
    timeout_s: float = 1800.0
    dead_letters: bool = False
    destroys: str = ""
    exits: bool = False


@dataclass
class Outcome:
    """A row's line in the table. `skipped`: why it could not be done here."""

    row: str
    seed: int
    injections: int = 0
    verdict: Verdict = field(default_factory=Verdict)
    recoveries: list[float] = field(default_factory=list)
    skipped: str = ""
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        return bool(self.verdict.faults)


@dataclass
class Stage:
    """One row's run. `count`: how many faults to inject."""

    row: Row
    folder: Path
    rng: random.Random
    count: int
    outcome: Outcome

    @contextlib.asynccontextmanager
    async def line(self, setup: Setup | None = None) -> AsyncIterator[Line]:
        """A line; when the block ends, what it did is on record, even if the row fails."""
        async with line(self.folder, setup or Setup(), self.rng) as made:
            try:
                yield made
            finally:
                self.outcome.injections = made.injections
                self.outcome.recoveries = made.recoveries

    async def verdict(self, made: Line) -> Verdict:
        """Let the line finish, and judge; with the faults of their own that the row does not expect."""
        if self.row.destroys:
            await aftermath.the_grace_time_passes(made)
        statuses = await made.finish()
        if self.row.destroys:
            await asyncio.to_thread(self._write_off, made)
        verdict = await asyncio.to_thread(made.judge, statuses)
        if letters := oracle.dead_letters(made.store):
            (self.outcome.notes if self.row.dead_letters else verdict.faults).extend(letters)
        if missing := oracle.missing_batches(made.store):
            verdict.faults.append(f"the ledger waits for {missing} batches")
        for service in made.services:
            if service.exits:
                said = f"{service.name} ended by itself {service.exits} times"
                (self.outcome.notes if self.row.exits else verdict.faults).append(said)
        return verdict

    def _write_off(self, made: Line) -> None:
        if count := aftermath.write_off(made, self.row.destroys):
            self.outcome.notes.append(f"the operator wrote off {count} batches: {self.row.destroys}")
