"""The outbox on disk: survives kills and full disks, refuses what is not its own, carries older ones on."""

from __future__ import annotations

import gzip
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.outbox.cache import CacheRows
from agent.outbox.contract import NORMAL, Draft, Dropped, Encoded, Lane, OutboxError, OutboxFull, Stored
from agent.outbox.disk import DiskOutbox
from protocols.uplink import definition as definitions
from protocols.uplink.definition import Definition
from protocols.uplink.envelope import decode

S = 1_000_000


def draft(size: int = 1000, machine: str = "m", priority: int = NORMAL) -> Draft:
    return Draft(
        machine, lambda epoch, seq: Encoded(f"{epoch} {seq} ".encode().ljust(size, b".")), 10, priority=priority
    )


def lane(outbox: DiskOutbox, machine: str = "m") -> Lane:
    return Lane(machine, outbox.epoch)


def pending(outbox: DiskOutbox, machine: str = "m", first: int = 1) -> list[Stored]:
    return list(outbox.pending(lane(outbox, machine), first, 1 << 40, 1 << 20))


def test_everything_is_there_again_after_a_restart(tmp_path: Path) -> None:
    first = DiskOutbox(tmp_path / "o", reserve_bytes=0)
    first.append([draft(), draft(100_000), draft(priority=1), draft(machine="n", priority=-1)], 7)
    first.confirmed(lane(first), 1, (), 8)
    first.offer(lane(first), 2, 2)
    session = first.next_session()
    before, epoch, instance = first.held(), first.epoch, first.instance
    first.close()
    again = DiskOutbox(tmp_path / "o", reserve_bytes=0)
    assert (again.epoch, again.instance) == (epoch, instance)
    assert again.held() == {
        name: held
        if name != lane(again)
        else held.__class__(
            2,
            waiting=((2, 2),),
            kept=((1, 1),),
            offered=((1, 2),),  # offers are written down in blocks
        )
        for name, held in before.items()
    }
    assert len(again.held()) == 3
    assert [len(s.payload) for s in pending(again)] == [1000, 100_000]
    assert again.next_session() > session
    assert again.news == ()
    assert (tmp_path / "o").stat().st_mode & 0o777 == 0o700
    again.close()


def test_two_agents_cannot_share_it(tmp_path: Path) -> None:
    outbox = DiskOutbox(tmp_path, reserve_bytes=0)
    with pytest.raises(OutboxError, match="another agent is using it"):
        DiskOutbox(tmp_path, reserve_bytes=0)
    outbox.close()
    DiskOutbox(tmp_path, reserve_bytes=0).close()


def test_no_pickle_goes_in_or_out(tmp_path: Path) -> None:
    outbox = DiskOutbox(tmp_path, reserve_bytes=0)
    outbox.append([draft(), draft()], 1)
    outbox.close()
    connection = sqlite3.connect(tmp_path / "queue" / "cache.db")
    connection.execute("UPDATE Cache SET mode = 4, value = ? WHERE key = 1", (pickle.dumps(os.getcwd),))
    connection.commit()
    connection.close()
    again = DiskOutbox(tmp_path, reserve_bytes=0)
    assert [s.seq for s in pending(again)] == [2]
    assert again.held()[lane(again)].dropped == (Dropped(1, 1, "unreadable in the outbox"),)
    again.close()


def test_sqlite_really_syncs_every_commit(tmp_path: Path) -> None:
    outbox = DiskOutbox(tmp_path, reserve_bytes=0)
    [(synchronous,)] = outbox._database.rows.sql("PRAGMA synchronous").fetchall()
    [(journal,)] = outbox._database.rows.sql("PRAGMA journal_mode").fetchall()
    assert (synchronous, journal) == (2, "wal")
    outbox.close()


def test_a_transaction_that_a_failed_commit_left_open_is_ended(tmp_path: Path) -> None:
    rows = CacheRows(tmp_path / "queue")
    rows.sql("BEGIN IMMEDIATE")
    rows.end_failed()
    with rows.transaction():
        rows.insert(0, Stored(1, b"x", 1), 0)
    assert [one.seq for one in rows.read(0, 1, 9)] == [1]
    rows.close()


def test_a_newer_schema_is_left_alone(tmp_path: Path) -> None:
    DiskOutbox(tmp_path, reserve_bytes=0).close()
    connection = sqlite3.connect(tmp_path / "queue" / "cache.db")
    connection.execute(
        "UPDATE Cache SET access_count = 0, value = CAST(replace(CAST(value AS TEXT), '\"schema\":2', '\"schema\":99')"
        " AS BLOB) WHERE key = -1"
    )
    connection.commit()
    before = connection.execute("SELECT * FROM Cache").fetchall()
    with pytest.raises(OutboxError, match="newer version"):
        DiskOutbox(tmp_path, reserve_bytes=0)
    assert connection.execute("SELECT * FROM Cache").fetchall() == before
    assert not list(tmp_path.glob("damaged*"))
    connection.close()


def test_an_outbox_of_schema_1_is_carried_on(tmp_path: Path) -> None:
    """The file was written by the program's first version: press 1 to 6 of which 2 are confirmed, lathe 1 to 3."""
    (tmp_path / "queue").mkdir()
    packed = (Path(__file__).parent / "data" / "outbox-schema-1.db.gz").read_bytes()
    (tmp_path / "queue" / "cache.db").write_bytes(gzip.decompress(packed))
    outbox = DiskOutbox(tmp_path, reserve_bytes=0)
    for _ in range(2):
        assert outbox.news == ()
        assert outbox.epoch == "5c0ffee5c0ffee01"
        press, lathe = outbox.held()[lane(outbox, "press")], outbox.held()[lane(outbox, "lathe")]
        assert (press.waiting, press.last, press.offered) == (((3, 6),), 6, ((1, 6),))
        assert press.dropped == (Dropped(1, 1, "outbox full"),)
        assert (lathe.waiting, lathe.last) == (((1, 3),), 3)
        stats = outbox.stats()
        assert (stats.batches, stats.bytes, stats.dropped, stats.oldest_us) == (7, 269, 1, 1_700_000_003 * S)

        def lookup(ref: bytes) -> Definition | None:
            found = outbox.definition(lane(outbox, "press"), ref)  # noqa: B023  # called within this round
            return None if found is None else definitions.decode(found.message)

        batches = [decode(stored.payload, lookup) for stored in pending(outbox, "press")]
        assert [(b.seq, list(b.blocks[0].columns[1].values)) for b in batches] == [(n, [n]) for n in (3, 4, 5, 6)]
        outbox.close()
        outbox = DiskOutbox(tmp_path, reserve_bytes=0)
    assert outbox.next_session() > 41
    assert outbox.append([draft(machine="press")], 9) == [7]
    outbox.confirmed(lane(outbox, "press"), 7, (), 10)
    assert outbox.held()[lane(outbox, "press")].kept == ((3, 7),)
    outbox.close()


def test_confirms_cost_no_transaction_and_are_written_with_the_next(tmp_path: Path) -> None:
    outbox = DiskOutbox(tmp_path, reserve_bytes=0)
    outbox.append([draft() for _ in range(10)], 1)
    looking = sqlite3.connect(tmp_path / "queue" / "cache.db")

    def version() -> int:
        """Changes with every transaction of another connection."""
        [(number,)] = looking.execute("PRAGMA data_version").fetchall()
        return int(number)

    before = version()
    outbox.confirmed(lane(outbox), 4, ((6, 6),), 2)
    outbox.wanted(lane(outbox), ((2, 2),))
    outbox.offer(lane(outbox, "nobody"), 1, 5)
    assert version() == before
    outbox.tend(3)
    tended = version()
    assert tended != before
    outbox.tend(4)
    assert version() == tended, "nothing to write down, nothing written"
    outbox.offer(lane(outbox), 7, 8)
    offered = version()
    assert offered != tended
    outbox.offer(lane(outbox), 9, 10)
    assert version() == offered, "the whole block is written down already"
    looking.close()
    outbox.close()


WRITER = """
import sys
from pathlib import Path
from agent.outbox.contract import Draft, Encoded, Lane
from agent.outbox.disk import DiskOutbox
outbox = DiskOutbox(Path(sys.argv[1]), reserve_bytes=0, grace_s=float(sys.argv[2]))
lane = Lane("m", outbox.epoch)
print("epoch", outbox.epoch, flush=True)
while True:
    for seq in outbox.append([Draft("m", lambda e, s: Encoded(f"{e} {s}".encode())) for _ in range(7)], 1):
        print(seq, flush=True)
    outbox.confirmed(lane, seq - 10, (), 1)
    outbox.offer(lane, 1, seq)
    print("c", seq - 10, flush=True)
"""


@pytest.mark.parametrize("grace_s", [0, 3600])
def test_what_was_reported_is_there_after_sigkill_and_no_number_is_given_twice(tmp_path: Path, grace_s: int) -> None:
    reported: list[int] = []
    confirmed = 0
    for round_ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(grace_s)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ,
        )
        assert process.stdout is not None
        process.stdout.readline()
        lines = [process.stdout.readline() for _ in range(50 + 13 * round_)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.read().splitlines()
        reported += [int(line) for line in lines if line.strip().isdigit()]
        confirmed = max([confirmed, *(int(line.split()[1]) for line in lines if line.startswith("c "))])
        process.stdout.close()
        process.wait()
    assert len(reported) == len(set(reported))
    outbox = DiskOutbox(tmp_path, reserve_bytes=0, grace_s=grace_s)
    held = outbox.held()[lane(outbox)]
    assert held.last >= max(reported)
    assert held.dropped == ()
    found = pending(outbox)
    here = {s.seq for s in found}
    assert {n for n in reported if n > confirmed} <= here, "nothing that is not confirmed is gone"
    if grace_s:
        assert [s.seq for s in found] == list(range(1, held.last + 1))
    waiting = {n for first, last in held.waiting for n in range(first, last + 1)}
    assert waiting >= set(range(confirmed + 1, held.last + 1))
    assert outbox.stats().batches == len(waiting)
    assert all(s.payload == f"{outbox.epoch} {s.seq}".encode() for s in found)
    outbox.close()


def test_many_rows_are_deleted_a_part_at_a_time_and_survive_a_restart_meanwhile(tmp_path: Path) -> None:
    outbox = DiskOutbox(tmp_path, reserve_bytes=0, grace_s=0)
    for _ in range(5):
        outbox.append([draft(20) for _ in range(2000)], 1)
    outbox.confirmed(lane(outbox), 9_990, (), 2)
    assert outbox.stats().batches == 10
    assert len(pending(outbox)) == 10
    outbox.tend(3)

    def rows() -> int:
        return int(outbox._database.rows.sql("SELECT count(*) FROM Cache WHERE key > 0").fetchall()[0][0])

    assert 10 < rows() < 10_000
    outbox.close()
    outbox = DiskOutbox(tmp_path, reserve_bytes=0, grace_s=0)
    assert outbox.stats().batches == 10
    for _ in range(5):
        outbox.tend(4)
    assert rows() == 10
    outbox.close()


# --- full disks -------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MB that can really be full."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16m,mode=0777", "holdfast-test", str(disk)]
    subprocess.run(command if os.geteuid() == 0 else ["sudo", "-n", *command], check=True)
    yield disk
    command = ["umount", "--lazy", str(disk)]
    subprocess.run(command if os.geteuid() == 0 else ["sudo", "-n", *command], check=True)


def fill(disk: Path) -> None:
    """Other people's files take all that is left."""
    with (disk / "others").open("ab", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue


def test_a_disk_filled_by_others_neither_jams_nor_corrupts_and_drains(small_disk: Path) -> None:
    outbox = DiskOutbox(small_disk / "o", reserve_bytes=4 << 20)
    assert (small_disk / "o" / "ballast").stat().st_blocks * 512 >= 4 << 20
    for _ in range(30):
        outbox.append([draft(20_000) for _ in range(5)], time.time_ns() // 1000)
    fill(small_disk)
    seqs: list[int] = []
    for turn in range(200):  # more than the reserve: the oldest make room for the newest
        if turn == 100:
            fill(small_disk)  # they take what the reserve left, too
        seqs += outbox.append([draft(20_000) for _ in range(5)], time.time_ns() // 1000)
        if turn % 20 == 0:
            outbox.tend(time.time_ns() // 1000)
    assert seqs == list(range(151, 1151))
    held = outbox.held()[lane(outbox)]
    assert (held.last, len(held.waiting)) == (1150, 1)
    first = held.waiting[0][0]
    assert held.dropped == (Dropped(1, first - 1, "disk full"),)
    assert outbox.stats().dropped_readings == 10 * (first - 1)
    epoch = outbox.epoch
    outbox.close()

    outbox = DiskOutbox(small_disk / "o", reserve_bytes=4 << 20)  # opens on a full disk, too
    assert outbox.epoch == epoch
    assert outbox.damaged is None
    assert outbox.news == ()
    kept = pending(outbox)
    assert [s.seq for s in kept] == list(range(first, 1151))
    assert all(s.payload.startswith(f"{epoch} {s.seq} ".encode()) for s in kept)
    for seq in range(first, 1151, 10):
        outbox.confirmed(lane(outbox), seq, (), 1)
        outbox.tend(1)
    outbox.confirmed(lane(outbox), 1150, (), 1)
    outbox.tend(1)
    assert outbox.stats().batches == 0
    (small_disk / "others").unlink()
    outbox.append([draft()], 1)
    assert (small_disk / "o" / "ballast").exists(), "the reserve is laid again once there is space"
    outbox.close()


def test_what_is_kept_goes_before_what_waits_on_a_full_disk(small_disk: Path) -> None:
    outbox = DiskOutbox(small_disk / "o", reserve_bytes=4 << 20)
    for _ in range(30):
        outbox.append([draft(20_000) for _ in range(5)], 1)
    outbox.confirmed(lane(outbox), 100, (), 2)
    fill(small_disk)
    for _ in range(10):
        outbox.append([draft(20_000) for _ in range(5)], 3)
    held = outbox.held()[lane(outbox)]
    assert held.waiting == ((101, 200),)
    assert held.dropped == ()
    assert held.kept[0][0] > 1
    outbox.close()


def test_a_disk_full_from_the_start_says_so(small_disk: Path) -> None:
    fill(small_disk)
    with pytest.raises(OutboxError, match=r"disk|space"):
        DiskOutbox(small_disk / "o")


def test_full_with_nothing_to_let_go_keeps_the_drafts_with_the_caller(small_disk: Path) -> None:
    outbox = DiskOutbox(small_disk / "o", reserve_bytes=0)
    fill(small_disk)
    with pytest.raises(OutboxFull, match="free some space"):
        outbox.append([draft(200_000)], 1)
    (small_disk / "others").unlink()
    before = outbox.held()[lane(outbox)].last if outbox.held() else 0
    assert outbox.append([draft()], 1) == [before + 1]
    outbox.close()


def test_it_leaves_as_much_of_the_disk_free_as_it_was_told_to(small_disk: Path) -> None:
    outbox = DiskOutbox(small_disk / "o", reserve_bytes=1 << 20, free_disk_bytes=6 << 20)
    for n in range(100):
        outbox.append([draft(20_000) for _ in range(10)], n)
    free = outbox.stats().disk_free_bytes
    assert free is not None
    assert 4 << 20 < free <= 6 << 20, "the log, and one transaction, may go a little further"
    held = outbox.held()[lane(outbox)]
    assert held.last == 1000
    assert held.dropped == (Dropped(1, held.waiting[0][0] - 1, "disk nearly full"),)
    assert (small_disk / "o" / "ballast").exists(), "the reserve is not for this"
    size = (small_disk / "o" / "queue" / "cache.db").stat().st_size
    with (small_disk / "others").open("wb") as file:
        file.write(b"\0" * (3 << 20))
    outbox.append([draft(20_000)], 100)
    assert (small_disk / "o" / "queue" / "cache.db").stat().st_size <= size
    (small_disk / "others").unlink()
    outbox.close()


def test_a_disk_that_becomes_read_only_is_an_error_in_one_sentence_and_not_the_end(small_disk: Path) -> None:
    def remount(how: str) -> None:
        command = ["mount", "-o", f"remount,{how}", str(small_disk)]
        subprocess.run(command if os.geteuid() == 0 else ["sudo", "-n", *command], check=True)

    outbox = DiskOutbox(small_disk / "o", reserve_bytes=1 << 20)
    outbox.append([draft(), draft()], 1)
    outbox._database.rows.close()  # a file that is open for writing would forbid the remount
    outbox._place.tally.close()
    os.close(outbox._lock)
    remount("ro")
    outbox._lock = os.open(small_disk / "o" / "lock", os.O_RDONLY)
    with pytest.raises(OutboxError, match="check the disk"):
        outbox.append([draft()], 2)
    outbox.tend(4)
    os.close(outbox._lock)
    outbox._database.rows.close()
    remount("rw")
    outbox._lock = os.open(small_disk / "o" / "lock", os.O_RDWR)
    assert outbox.append([draft()], 5) == [3]
    assert [s.seq for s in pending(outbox)] == [1, 2, 3]
    outbox.close()
