"""The outbox on disk: survives kills and full disks, refuses what is not its own."""

from __future__ import annotations

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

from agent.outbox.contract import Draft, Encoded, OutboxError, OutboxFull
from agent.outbox.disk import DiskOutbox


def draft(size: int = 1000) -> Draft:
    return Draft("m", lambda epoch, seq: Encoded(f"{epoch} {seq} ".encode().ljust(size, b".")))


def test_everything_is_there_again_after_a_restart(tmp_path: Path) -> None:
    first = DiskOutbox(tmp_path / "o", reserve_bytes=0)
    first.append([draft(), draft(100_000)], 7)
    session = first.next_session()
    epoch = first.epoch
    first.close()
    again = DiskOutbox(tmp_path / "o", reserve_bytes=0)
    assert again.epoch == epoch
    assert [len(s.payload) for s in again.pending("m", 0, 9)] == [1000, 100_000]
    assert again.next_session() > session
    assert (tmp_path / "o").stat().st_mode & 0o777 == 0o700
    again.close()


def test_a_new_outbox_is_a_new_epoch(tmp_path: Path) -> None:
    epochs = set()
    for name in ("a", "b", "c"):
        outbox = DiskOutbox(tmp_path / name, reserve_bytes=0)
        epochs.add(outbox.epoch)
        outbox.close()
    assert len(epochs) == 3


def test_two_agents_cannot_share_it(tmp_path: Path) -> None:
    outbox = DiskOutbox(tmp_path, reserve_bytes=0)
    with pytest.raises(OutboxError, match="another agent is using it"):
        DiskOutbox(tmp_path, reserve_bytes=0)
    outbox.close()
    DiskOutbox(tmp_path, reserve_bytes=0).close()


def test_no_pickle_goes_in_or_out(tmp_path: Path) -> None:
    outbox = DiskOutbox(tmp_path, reserve_bytes=0)
    outbox.append([draft()], 1)
    outbox.close()
    connection = sqlite3.connect(tmp_path / "queue" / "cache.db")
    connection.execute("UPDATE Cache SET mode = 4, value = ? WHERE key > 0", (pickle.dumps(os.getcwd),))
    connection.commit()
    connection.close()
    again = DiskOutbox(tmp_path, reserve_bytes=0)
    with pytest.raises(OutboxError, match="not bytes"):
        again.pending("m", 0, 1)
    again.close()


def test_sqlite_really_syncs_every_commit(tmp_path: Path) -> None:
    outbox = DiskOutbox(tmp_path, reserve_bytes=0)
    [(synchronous,)] = outbox._cache._sql("PRAGMA synchronous").fetchall()
    [(journal,)] = outbox._cache._sql("PRAGMA journal_mode").fetchall()
    assert (synchronous, journal) == (2, "wal")
    outbox.close()


def test_a_damaged_file_is_set_aside_whole_and_a_new_epoch_begins(tmp_path: Path) -> None:
    outbox = DiskOutbox(tmp_path, reserve_bytes=0)
    outbox.append([draft()], 1)
    epoch = outbox.epoch
    outbox.close()
    database = tmp_path / "queue" / "cache.db"
    damaged = b"not a database" * 1000
    database.write_bytes(damaged)
    again = DiskOutbox(tmp_path, reserve_bytes=0)
    assert again.epoch != epoch
    assert again.damaged is not None
    assert (again.damaged / "cache.db").read_bytes() == damaged
    assert again.append([draft()], 1) == [1]
    again.close()


def test_a_newer_schema_is_left_alone(tmp_path: Path) -> None:
    DiskOutbox(tmp_path, reserve_bytes=0).close()
    connection = sqlite3.connect(tmp_path / "queue" / "cache.db")
    connection.execute("UPDATE Cache SET value = replace(CAST(value AS TEXT), '\"schema\":1', '\"schema\":99')")
    connection.execute("UPDATE Cache SET value = CAST(value AS BLOB)")
    connection.commit()
    connection.close()
    with pytest.raises(OutboxError, match="newer version"):
        DiskOutbox(tmp_path, reserve_bytes=0)


WRITER = """
import sys
from pathlib import Path
from agent.outbox.contract import Draft, Encoded
from agent.outbox.disk import DiskOutbox
outbox = DiskOutbox(Path(sys.argv[1]), reserve_bytes=0)
print("epoch", outbox.epoch, flush=True)
while True:
    for seq in outbox.append([Draft("m", lambda e, s: Encoded(f"{e} {s}".encode())) for _ in range(7)], 1):
        print(seq, flush=True)
"""


def test_what_was_reported_is_there_after_sigkill_and_no_number_is_given_twice(tmp_path: Path) -> None:
    reported: list[int] = []
    for round_ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=os.environ
        )
        assert process.stdout is not None
        process.stdout.readline()
        reported.extend(int(process.stdout.readline()) for _ in range(50 + 13 * round_))
        process.send_signal(signal.SIGKILL)
        reported.extend(int(line) for line in process.stdout.read().splitlines() if line.isdigit())
        process.stdout.close()
        process.wait()
    assert len(reported) == len(set(reported))
    outbox = DiskOutbox(tmp_path, reserve_bytes=0)
    found = outbox.pending("m", 0, 100_000)
    assert [s.seq for s in found] == list(range(1, len(found) + 1))
    assert set(reported) <= {s.seq for s in found}
    assert all(s.payload == f"{outbox.epoch} {s.seq}".encode() for s in found)
    outbox.close()


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
    assert seqs == list(range(151, 1151))
    held = outbox.held()["m"]
    assert held.last == 1150
    assert [(d.first, d.last, d.reason) for d in held.dropped] == [(1, held.first - 1, "disk full")]
    epoch = outbox.epoch
    outbox.close()

    outbox = DiskOutbox(small_disk / "o", reserve_bytes=4 << 20)  # opens on a full disk, too
    assert outbox.epoch == epoch
    assert outbox.damaged is None
    kept = outbox.pending("m", 0, 10_000)
    assert [s.seq for s in kept] == list(range(held.first, 1151))
    assert all(s.payload.startswith(f"{epoch} {s.seq} ".encode()) for s in kept)
    for seq in range(held.first, 1151, 10):
        outbox.release("m", seq)
    assert outbox.release("m", 1150) >= 0
    assert outbox.stats().batches == 0
    (small_disk / "others").unlink()
    outbox.append([draft()], 1)
    assert (small_disk / "o" / "ballast").exists(), "the reserve is laid again once there is space"
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
    before = outbox.held()["m"].last if outbox.held() else 0
    assert outbox.append([draft()], 1) == [before + 1]
    outbox.close()
