"""The outbox on a disk that fails: after a failed COMMIT the transaction may be there, or not; what cannot be read now
may be read soon.

The calls fail for real, by tests/faults/shim.c, in a process of its own.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from agent.outbox import reading
from agent.outbox.contract import Draft, Encoded, Lane, OutboxError, Stored
from agent.outbox.disk import DiskOutbox
from tests.faults.shim import Shim, no_shim

BEGIN = """
import mmap, os, struct, sys
from pathlib import Path
from agent.outbox.contract import Draft, Encoded, Lane, OutboxError, OutboxFull
from agent.outbox.disk import DiskOutbox

control = mmap.mmap(os.open(os.environ["FAULT_SHIM"], os.O_RDWR), 48)

def fail(fsync=0, writes=0, reads=0):
    control[:8] = struct.pack("=II", fsync, writes)
    control[40:44] = struct.pack("=I", reads)

def draft(name, size=100):
    return Draft("m", lambda epoch, seq: Encoded(f"{name} {epoch} {seq} ".encode().ljust(size, b".")), 10)

def refused(drafts, now_us=2):
    try:
        outbox.append(drafts, now_us)
    except OutboxFull as error:
        assert str(error).startswith("outbox "), error
        return
    raise AssertionError("the disk took it")

def names():
    return [(one.seq, one.payload.split()[0].decode()) for one in outbox.pending(lane, 1, 1 << 40, 1 << 20)]

outbox = DiskOutbox(Path(sys.argv[1]), reserve_bytes=1 << 20)
lane = Lane("m", outbox.epoch)
assert outbox.append([draft("a"), draft("b")], 1) == [1, 2]
"""

NOT_THERE = """
outbox.confirmed(lane, 1, (), 2)
c, d = draft("c"), draft("d")
fail(fsync=1_000_000)
refused([c, d])
refused([c])
outbox.tend(3)
assert outbox.stats().batches == 1
fail()
assert outbox.append([c], 4) == [3]
assert outbox.append([d], 4) == [4]
assert outbox.held()[lane].kept == ((1, 1),), "what was confirmed is not forgotten over it"
"""

THERE = """
c, d = draft("c"), draft("d")
outbox.offer(lane, 1, 1)
fail(fsync=1_000_000)
refused([c, d])
outbox._database.rows.close()  # it cannot empty its log; so whoever opens it next finds the transaction there
refused([draft("never given again")])
assert outbox.stats().batches in (2, 4)
fail()
assert outbox.append([c], 4) == [3], "it is there, and not stored again"
assert outbox.append([d, draft("e")], 4) == [4, 5]
assert outbox.held()[lane].offered == ((1, 1),)
assert outbox.append([draft("f")], 4) == [6]
"""

IN_THE_DARK = """
c, d = draft("c"), draft("d")
session = outbox.next_session()
fail(fsync=1_000_000)
refused([c, d])
outbox._database.rows.close()
database, away = Path(sys.argv[1]) / "queue", Path(sys.argv[1]) / "away"
database.rename(away)  # the disk cannot even be read for a while
before = outbox.held()
for call in (
    lambda: outbox.append([c], 3),
    outbox.next_session,
    lambda: outbox.pending(lane, 1, 9, 9),
    lambda: outbox.tend(5),
    lambda: outbox.offer(lane, 300, 301),
):
    try:
        call()
    except OutboxError as error:
        assert "unable to open database file" in str(error), error
        assert "damaged" not in str(error)
assert outbox.held() == before
assert outbox.stats().batches == 2, "as last known"
away.rename(database)
fail()
assert outbox.append([c], 4) == [3]
assert outbox.append([d, draft("e")], 4) == [4, 5]
assert outbox.append([draft("f")], 4) == [6]
assert outbox.next_session() > session
"""

FULL_OR_FAILING = """
c, d, e, f = map(draft, "cdef")
for broken in ({"writes": 1_000_000}, {"fsync": 1_000_000}):
    fail(**broken)
    for _ in range(5):
        refused([c])
    fail()
    assert outbox.stats().dropped == 0, "there is space: nothing was let go of"
assert outbox.append([c, d, e, f], 3) == [3, 4, 5, 6]
"""

UNREADABLE = """
import threading
import time
from agent.outbox import reading

outbox.append([draft("c", 300_000), draft("d", 300_000), draft("e", 300_000), draft("f", 300_000)], 2)
outbox.append([draft("g", 3_000_000)], 2)  # what was read before is in SQLite's cache no more
outbox.give_up(lane, 7, "a test")
reading.PATIENCE_S = 3600.0
fail(reads=1_000_000)
for call in (lambda: outbox.pending(lane, 1, 9, 9), lambda: outbox.pending(lane, 3, 3, 1)):
    try:
        call()
    except OutboxError as error:
        assert "could not be read" in str(error) and "tried again" in str(error), error
    else:
        raise AssertionError("it was read")
assert outbox.stats().batches == 6
outbox.append([], 3)  # whatever becomes of it, nothing is set aside
threading.Timer(0.1, fail).start()
assert len(outbox.pending(lane, 1, 9, 9)) == 6, "it is tried again by itself"
fail(reads=1_000_000)
outbox._database._patience.failed(time.monotonic() - 2 * reading.PATIENCE_S)
reading.PEACE_S, reading.PATIENCE_S = 1e9, 0.0
try:
    outbox.pending(lane, 1, 9, 9)
except OutboxError:
    pass
assert outbox.damaged is None, "nothing at all can be read: then there is nothing to salvage either"
fail()
"""

END = """
assert names() == list(zip(range(1, 7), "abcdef"))[: len(names())], names()
assert outbox.damaged is None and outbox.news == (), outbox.news
print(len(names()))
outbox.close()
"""


def run(folder: Path, story: str) -> str:
    home = folder / "home"
    home.mkdir()
    shim = Shim(folder, home, seed=1)
    environ = {**os.environ, **shim.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    found = subprocess.run(
        [sys.executable, "-c", story, str(home / "o")], env=environ, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr[-2000:]
    assert "damaged" not in found.stdout
    return found.stdout


needs_shim = pytest.mark.skipif(no_shim() != "", reason=no_shim())


@needs_shim
@pytest.mark.parametrize(
    ("story", "count"),
    [
        pytest.param(NOT_THERE, 4, id="rolled back"),
        pytest.param(THERE, 6, id="there after reopening"),
        pytest.param(IN_THE_DARK, 6, id="not to be known for a while"),
        pytest.param(FULL_OR_FAILING, 6, id="failing is not full"),
        pytest.param(UNREADABLE, 6, id="unreadable is not damaged"),
    ],
)
def test_a_commit_that_failed_is_stored_once_or_not_at_all(tmp_path: Path, story: str, count: int) -> None:
    assert run(tmp_path, BEGIN + story + END).splitlines()[-1] == str(count)
    outbox = DiskOutbox(tmp_path / "home" / "o", reserve_bytes=0)
    found = outbox.pending(Lane("m", outbox.epoch), 1, 1 << 40, 1 << 20)
    assert [(one.seq, one.payload[:1].decode()) for one in found] == list(
        zip(range(1, count + 1), "abcdef", strict=False)
    )
    assert outbox.news == ()
    outbox.close()


OPENED = """
import os, sys
from pathlib import Path
from agent.outbox import opening
from agent.outbox.contract import OutboxError
from agent.outbox.disk import DiskOutbox
import mmap, struct, threading

control = mmap.mmap(os.open(os.environ["FAULT_SHIM"], os.O_RDWR), 48)
fail = lambda part: control.__setitem__(slice(40, 44), struct.pack("=I", part))
DiskOutbox(Path(sys.argv[1]), reserve_bytes=0).close()
opening.OPENING_PAUSES_S = (0.05, 0.05)
fail(1_000_000)
try:
    DiskOutbox(Path(sys.argv[1]), reserve_bytes=0)
except OutboxError as error:
    print(error)
opening.OPENING_PAUSES_S = (0.3, 0.3)
threading.Timer(0.1, fail, [0]).start()
outbox = DiskOutbox(Path(sys.argv[1]), reserve_bytes=0)
assert outbox.damaged is None and outbox.news == (), outbox.news
outbox.close()
"""


@needs_shim
def test_an_outbox_that_cannot_be_read_for_a_moment_is_opened_when_it_can(tmp_path: Path) -> None:
    said = run(tmp_path, OPENED)
    assert "could not be read" in said or "cannot be read" in said
    assert "check the disk" in said


@needs_shim
def test_a_crash_after_a_commit_that_failed_leaves_a_sound_outbox(tmp_path: Path) -> None:
    run(tmp_path, BEGIN + 'fail(fsync=1_000_000)\nrefused([draft("c"), draft("d")])\nos._exit(0)\n')
    outbox = DiskOutbox(tmp_path / "home" / "o", reserve_bytes=0)
    lane = Lane("m", outbox.epoch)
    last = outbox.held()[lane].last
    assert last in (2, 4), "all of it or nothing"
    assert [one.seq for one in outbox.pending(lane, 1, 9, 9)] == list(range(1, last + 1))
    assert outbox.news == ()
    outbox.close()


def test_a_place_that_stays_unreadable_is_salvaged_around_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = DiskOutbox(tmp_path, reserve_bytes=0)
    draft = Draft("m", lambda _, seq: Encoded(b"%d" % seq))
    outbox.append([draft] * 3, 1)
    lane, rows = Lane("m", outbox.epoch), outbox._database.rows

    def fails(*_: int) -> list[Stored]:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorname = "SQLITE_IOERR_CORRUPTFS"
        raise error

    monkeypatch.setattr(rows, "read", fails)  # of this database; the one that takes its place lies elsewhere
    with pytest.raises(OutboxError, match=r"the disk could not be read .* tried again"):
        outbox.pending(lane, 1, 3, 3)
    assert (outbox.damaged, outbox.news) == (None, ())
    assert outbox.append([draft], 2) == [4], "the line goes on meanwhile"
    monkeypatch.setattr(reading, "PATIENCE_S", 0.0)
    assert [one.seq for one in outbox.pending(lane, 1, 9, 9)] == [1, 2, 3, 4]
    assert outbox.damaged is not None
    assert "set aside whole" in outbox.news[0]
    outbox.close()


def test_read_errors_count_as_damage_only_when_they_go_on() -> None:
    patience = reading.Patience()
    assert not patience.failed(0.0)
    assert not patience.failed(reading.PATIENCE_S - 1)
    assert patience.failed(reading.PATIENCE_S)
    assert not patience.failed(2 * reading.PATIENCE_S + reading.PEACE_S), "it was sound in between"
