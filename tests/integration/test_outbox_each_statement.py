"""Each statement that the outbox gives to SQLite fails once, one in each run: everything is there once, all goes on.

A COMMIT fails in both ways: nothing of the transaction is there, or all of it.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.outbox import database
from agent.outbox.contract import Draft, Encoded, Lane, OutboxError
from agent.outbox.disk import DiskOutbox

TRIES = 4


class Statements:
    """Notes them; the one with number `fails_at` fails, a COMMIT `after` it was done or before."""

    def __init__(self, fails_at: int = 0, *, after: bool = False) -> None:
        self.seen: list[str] = []
        self.fails_at = fails_at
        self.after = after

    def connection(self) -> type[sqlite3.Connection]:
        statements = self

        class Failing(sqlite3.Connection):
            def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
                statements.seen.append(sql)
                if len(statements.seen) != statements.fails_at:
                    return super().execute(sql, *parameters)
                if sql == "COMMIT" and statements.after:
                    super().execute(sql)
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorname = "SQLITE_IOERR_READ" if sql.startswith("SELECT") else "SQLITE_IOERR_FSYNC"
                raise error

        return Failing


def draft(name: str) -> Draft:
    return Draft("m", lambda epoch, seq: Encoded(f"{name} {epoch} {seq}".encode()), 1)


def insist(call: Callable[[], object]) -> None:
    """As pipeline and forwarder do: again, with the same drafts."""
    for _ in range(TRIES):
        try:
            call()
        except OutboxError:
            continue
        return
    raise AssertionError("it fails for good")


def life(directory: Path, names: str, story: Callable[[DiskOutbox, Lane], list[Callable[[], object]]]) -> None:
    """One run of the agent, which a failing opening ends as well: then it is started again."""
    found: list[DiskOutbox] = []
    insist(lambda: found.append(DiskOutbox(directory, reserve_bytes=0)))
    [outbox] = found
    for name in names:
        drafts = [draft(name), draft(name.upper())]
        insist(lambda drafts=drafts: outbox.append(drafts, 1))  # type: ignore[misc]  # a loop's own
    for step in story(outbox, Lane("m", outbox.epoch)):
        insist(step)
    assert outbox.news == ()
    outbox.close()


def first(outbox: DiskOutbox, lane: Lane) -> list[Callable[[], object]]:
    return [
        outbox.next_session,
        lambda: outbox.offer(lane, 1, 3),
        lambda: outbox.confirmed(lane, 2, ((4, 4),), 2),
        lambda: outbox.tend(3),
        lambda: outbox.wanted(lane, ((2, 2),)),
        lambda: outbox.pending(lane, 1, 9, 9),
        lambda: outbox.declare_dropped(lane, 7, 8, "a test"),
    ]


def second(outbox: DiskOutbox, lane: Lane) -> list[Callable[[], object]]:
    return [lambda: outbox.tend(4), outbox.stats]


def play(directory: Path, statements: Statements, monkeypatch: pytest.MonkeyPatch) -> None:
    real = sqlite3.connect

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        made: sqlite3.Connection = real(*arguments, **{"factory": statements.connection(), **options})
        return made

    with monkeypatch.context() as patched:
        patched.setattr(sqlite3, "connect", connect)
        life(directory, "abc", first)
        life(directory, "d", second)


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Path]:
    """A directory that syncs cost nothing in, where there is one."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="holdfast-", dir=shared if shared.is_dir() else tmp_path) as folder:
        yield Path(folder)


def test_whichever_statement_fails_everything_is_there_once(in_memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "PAUSES_S", (0.0,))
    sound = Statements()
    play(in_memory / "sound", sound, monkeypatch)
    ours = [(at, sql) for at, sql in enumerate(sound.seen, 1) if "Settings" not in sql and "PRAGMA" not in sql]
    ways = [(at, sql, False) for at, sql in ours] + [(at, sql, True) for at, sql in ours if sql == "COMMIT"]
    assert len(ways) > 30
    for at, sql, after in ways:
        directory = in_memory / f"{at}-{after}"
        play(directory, Statements(at, after=after), monkeypatch)
        outbox = DiskOutbox(directory, reserve_bytes=0)
        assert outbox.damaged is None, sql
        [lane] = outbox.held()
        held, found = outbox.held()[lane], outbox.pending(lane, 1, 99, 99)
        names = {one.seq: one.payload.split()[0].decode() for one in found}
        assert names == dict(zip((1, 2, 3, 4, 5, 6, 9, 10), "aAbBcCdD", strict=True)), (at, sql, after)
        assert held.last == 10
        outbox.close()
