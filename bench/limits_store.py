"""How fast this machine takes rows when nobody asks where they come from: bare INSERT, bare executemany, bare COPY.

All write the receiver's table of readings with its index, durably, one transaction per message.
"""

from __future__ import annotations

import os
import pwd
import shutil
import sqlite3
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.processes import Process, RunFailed, wait_until

Readings = Sequence[tuple[int, int, float, int]]
"""(series, µs since 1970, value, quality)."""

ROWS = 100
_INSERT = "INSERT INTO readings VALUES (?, ?, ?, ?)"
_COPY_HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_END = struct.pack(">h", -1)
_COPY_ROW = struct.Struct(">h iiiqidii")
_TABLE = (
    "CREATE TABLE readings (series_id int NOT NULL, time bigint NOT NULL, value float8, quality int NOT NULL);"
    "CREATE INDEX readings_by_time ON readings (time, series_id);"
)


class Absent(Exception):
    """The server is not here; the text says so in one sentence."""


@dataclass(frozen=True, slots=True)
class Stored:
    """`rows` in `wall_s`, with `cpu_s` of whoever wrote them."""

    rows: int
    wall_s: float
    cpu_s: float


def executemany(path: Path, messages: Sequence[Readings]) -> Stored:
    """A statement for each row, as everybody writes it."""
    return _sqlite(path, messages, _one_by_one)


def inserts(path: Path, messages: Sequence[Readings]) -> Stored:
    """ROWS rows in a statement, and the rest one by one: the quickest way there is from Python."""
    return _sqlite(path, messages, _many_by_many)


def _one_by_one(connection: sqlite3.Connection, rows: Readings) -> None:
    connection.executemany(_INSERT, rows)


def _many_by_many(connection: sqlite3.Connection, rows: Readings) -> None:
    whole = len(rows) // ROWS * ROWS
    parts = (tuple(chain.from_iterable(rows[at : at + ROWS])) for at in range(0, whole, ROWS))
    connection.executemany(_INSERT + ", (?, ?, ?, ?)" * (ROWS - 1), parts)
    _one_by_one(connection, rows[whole:])


def _sqlite(path: Path, messages: Sequence[Readings], write: Callable[[sqlite3.Connection, Readings], None]) -> Stored:
    """SQLite, WAL, synchronous=FULL, in this process, one transaction per message; the rows lie ready."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-32768;"
        "CREATE TABLE readings (series_id INTEGER NOT NULL, time INTEGER NOT NULL, value, quality INTEGER NOT NULL);"
        "CREATE INDEX readings_by_time ON readings (time, series_id);"
    )
    try:
        cpu_s, begun_s = time.process_time(), time.perf_counter()
        for rows in messages:
            connection.execute("BEGIN IMMEDIATE")
            write(connection, rows)
            connection.execute("COMMIT")
        wall_s, cpu_s = time.perf_counter() - begun_s, time.process_time() - cpu_s
        ((count, distinct),) = connection.execute(
            "SELECT count(*), (SELECT count(*) FROM (SELECT DISTINCT series_id, time FROM readings)) FROM readings"
        )
    finally:
        connection.close()
    _check(messages, count, distinct)
    return Stored(count, wall_s, cpu_s)


def copy(messages: Sequence[Readings]) -> Stored:
    """PostgreSQL as it comes (fsync, synchronous_commit), a private server, binary COPY from files. Raises Absent."""
    # A directory of its own: another user may have to reach it, and may not through a private one above it.
    with TemporaryDirectory(prefix="holdfast-bench-pg-") as name, _postgres(directory := Path(name)) as (server, psql):
        psql("-c", _TABLE)
        script = []
        for at, rows in enumerate(messages):
            file = directory / f"{at}.copy"
            file.write_bytes(_copy_file(rows))
            script.append(f"\\copy readings FROM '{file}' WITH (FORMAT binary)")
        (directory / "copy.sql").write_text("\n".join(script) + "\n")
        before, begun_s = _server_cpu_s(server), time.perf_counter()
        psql("-f", str(directory / "copy.sql"))
        wall_s = time.perf_counter() - begun_s
        cpu_s = _server_cpu_s(server) - before
        count, distinct = psql(
            "-Atc", "SELECT count(*) || '|' || count(DISTINCT (series_id, time)) FROM readings"
        ).split("|")
    _check(messages, int(count), int(distinct))
    return Stored(int(count), wall_s, cpu_s)


def _check(messages: Sequence[Readings], count: int, distinct: int) -> None:
    wanted = sum(map(len, messages))
    if (count, distinct) != (wanted, wanted):
        raise RunFailed(f"of {wanted} rows {count} were stored, {distinct} of them distinct")


def _copy_file(rows: Readings) -> bytes:
    """COPY's binary format (PostgreSQL's manual, COPY, "Binary Format"): four fields a row, each with its length."""
    packed = (
        _COPY_ROW.pack(4, 4, series, 8, time_us, 8, value, 4, quality) for series, time_us, value, quality in rows
    )
    return _COPY_HEAD + b"".join(packed) + _COPY_END


class _Psql:
    def __init__(self, program: str, directory: Path) -> None:
        self._command = [
            program,
            "-X",
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            "bench",
            "-h",
            str(directory),
            "-d",
            "postgres",
        ]

    def __call__(self, *words: str) -> str:
        done = subprocess.run([*self._command, *words], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RunFailed(f"psql: {done.stderr.strip()[-300:]}")
        return done.stdout.strip()

    def answers(self) -> bool:
        done = subprocess.run([*self._command, "-c", "SELECT 1"], capture_output=True, check=False)
        return done.returncode == 0


@contextmanager
def _postgres(directory: Path) -> Iterator[tuple[Process, _Psql]]:
    """A private server in `directory`, on a socket there and on no port."""
    programs = _programs()
    as_user = _as_user(directory)
    data = directory / "data"
    made = subprocess.run(
        [*as_user, str(programs / "initdb"), "-D", str(data), "-U", "bench", "-A", "trust", "-E", "UTF8", "--no-sync"],
        capture_output=True,
        text=True,
        cwd=directory,
        check=False,
    )
    if made.returncode:
        raise Absent(f"PostgreSQL: initdb failed: {made.stderr.strip()[-200:]}")
    command = [*as_user, str(programs / "postgres"), "-D", str(data), "-k", str(directory), "-c", "listen_addresses="]
    psql = _Psql(str(programs / "psql"), directory)
    with Process("postgres", command, directory / "postgres.log", cwd=directory) as server:
        wait_until(psql.answers, "PostgreSQL's socket", 30.0, server)
        yield server, psql


def _programs() -> Path:
    """Where initdb and postgres are: Debian keeps them off the PATH, a directory per version."""
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).resolve().parent
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found:
        raise Absent("PostgreSQL is not installed (Debian: apt install postgresql)")
    return found[-1].parent


def _as_user(directory: Path) -> list[str]:
    """PostgreSQL refuses to be root: then somebody else starts it, who gets the directory."""
    if os.geteuid() != 0:
        return []
    names = {entry.pw_name for entry in pwd.getpwall()}
    name = next((name for name in ("postgres", "nobody") if name in names), None)
    setpriv = shutil.which("setpriv")
    if name is None or setpriv is None:
        raise Absent("PostgreSQL does not run as root, and there is no other user, or no setpriv, to run it as")
    user = pwd.getpwnam(name)
    os.chown(directory, user.pw_uid, user.pw_gid)
    return [setpriv, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--"]


def _server_cpu_s(server: Process) -> float:
    """Of the server, its living children, and those that have ended (proc(5): utime, stime, cutime, cstime)."""
    ticks = sum(_ticks(server.pid)[:4])
    for child in Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split():
        ticks += sum(_ticks(int(child))[:2])
    return ticks / os.sysconf("SC_CLK_TCK")


def _ticks(pid: int) -> list[int]:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return [int(field) for field in fields[11:15]]
