"""An outbox whose database is lost, in whole or in part: the original answers for what is destroyed, a copy never does.

What a copy was copied from may be alive, and lets go of what it hears to be dropped.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.outbox import identity
from agent.outbox.contract import HIGH, NORMAL, Draft, Encoded, Former, Lane
from agent.outbox.disk import DiskOutbox
from agent.outbox.identity import is_dated

DESTROYED = "declared as destroyed"
Harm = Callable[[Path], None]


def draft(machine: str = "m", priority: int = NORMAL) -> Draft:
    return Draft(machine, lambda epoch, seq: Encoded(f"{epoch} {seq}".encode().ljust(300)), 1, priority=priority)


def open_outbox(directory: Path) -> DiskOutbox:
    return DiskOutbox(directory, reserve_bytes=0)


@contextmanager
def opened(directory: Path) -> Iterator[DiskOutbox]:
    outbox = open_outbox(directory)
    try:
        yield outbox
    finally:
        outbox.close()


def killed(directory: Path, job: Callable[[DiskOutbox], object]) -> None:
    """A process that opens the outbox, does this and is killed."""

    def life() -> None:
        job(open_outbox(directory))

    dies(life)


def dies(life: Callable[[], object]) -> None:
    """In a process of its own, which ends without any farewell."""
    child = os.fork()
    if child == 0:
        try:
            life()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def build(directory: Path) -> list[Lane]:
    """Three lanes of two priorities and two machines; its lanes. Of the first one number 1 to 4 are given."""
    with opened(directory) as outbox:
        outbox.append([draft(), draft(), draft(), draft(), draft(priority=HIGH), draft("n")], 1)
        return list(outbox.held())


def copy(source: Path, to: Path, *, is_original: bool) -> Path:
    """`is_original`: with the very marker, which no copy has."""
    shutil.copytree(source, to)
    if is_original:
        (to / "life").unlink()
        (to / "life").hardlink_to(source / "life")
    return to


def lose_the_main_record(directory: Path) -> None:
    connection = sqlite3.connect(directory / "queue" / "cache.db")
    connection.execute("UPDATE Cache SET access_count = 1 WHERE key = -1")
    connection.commit()
    connection.close()


def overwrite(directory: Path) -> None:
    for file in (directory / "queue").iterdir():
        file.write_bytes(b"not a database" * 1000)


def empty(directory: Path) -> None:
    for file in (directory / "queue").iterdir():
        os.truncate(file, 0)


def delete(directory: Path) -> None:
    for file in (directory / "queue").iterdir():
        file.unlink()


def delete_all(directory: Path) -> None:
    shutil.rmtree(directory / "queue")


HARMS = [lose_the_main_record, overwrite, empty, delete, delete_all]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Lane]]:
    directory = tmp_path_factory.mktemp("wreck") / "o"
    return directory, build(directory)


def is_damaged(outbox: DiskOutbox, lane: Lane) -> bool:
    found = outbox.former(lane)
    return found is not None and found.is_damaged


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Path]:
    """A directory in which syncs cost nothing and files have a time of birth, where there is one."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="holdfast-", dir=shared if shared.is_dir() else tmp_path) as folder:
        (Path(folder) / "life").touch()
        is_fit = is_dated(identity.Marker(Path(folder)).found() or " 0")
        yield Path(folder) if is_fit else tmp_path


# --- a database that is lost ---


@pytest.mark.parametrize("harm", HARMS)
def test_the_original_answers_for_what_is_destroyed(sound: tuple[Path, list[Lane]], tmp_path: Path, harm: Harm) -> None:
    directory = copy(sound[0], tmp_path / "o", is_original=True)
    with opened(directory) as outbox:
        instance, epoch = outbox.instance, outbox.epoch
        session = [outbox.next_session() for _ in range(9)][-1]
    harm(directory)
    with opened(directory) as outbox:
        assert [outbox.former(lane) for lane in sound[1]] == [
            Former(last if harm is lose_the_main_record else 0, is_damaged=True) for last in (4, 1, 1)
        ]
        assert outbox.instance == instance
        assert outbox.epoch != epoch
        assert DESTROYED in outbox.news[-1]
        assert outbox.append([draft()], 2) == [1]
        assert outbox.next_session() > session
        successor = outbox.epoch
    with opened(directory) as outbox:
        assert outbox.news == ()
        assert (outbox.instance, outbox.epoch) == (instance, successor)
        assert all(is_damaged(outbox, lane) for lane in sound[1])
    harm(directory)
    with opened(directory) as outbox:
        assert all(is_damaged(outbox, lane) for lane in (*sound[1], Lane("m", successor))), "and once more"


@pytest.mark.parametrize("harm", HARMS)
def test_a_copy_never_does(sound: tuple[Path, list[Lane]], tmp_path: Path, harm: Harm) -> None:
    directory = copy(sound[0], tmp_path / "copy", is_original=False)
    harm(directory)
    with opened(directory) as outbox:
        assert not any(is_damaged(outbox, lane) for lane in sound[1])
        assert not any(DESTROYED in sentence for sentence in outbox.news)
    harm(directory)
    with opened(directory) as outbox:
        assert not any(is_damaged(outbox, lane) for lane in sound[1])


@pytest.mark.parametrize("harm", HARMS)
def test_a_copy_that_has_run_answers_for_its_own_numbers_only(
    sound: tuple[Path, list[Lane]], tmp_path: Path, harm: Harm
) -> None:
    directory = copy(sound[0], tmp_path / "copy", is_original=False)
    with opened(directory) as outbox:
        outbox.append([draft()], 2)
        own = Lane("m", outbox.epoch)
    harm(directory)
    with opened(directory) as outbox:
        assert is_damaged(outbox, own)
        assert not any(is_damaged(outbox, lane) for lane in sound[1])


@pytest.mark.parametrize("harm", HARMS)
def test_another_machine_or_disk_never_does(
    sound: tuple[Path, list[Lane]], tmp_path: Path, harm: Harm, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = copy(sound[0], tmp_path / "o", is_original=True)
    found = identity.find_signs(directory)
    monkeypatch.setattr(identity, "find_signs", lambda _: {**found, "machine": ["0123456789abcdef"]})
    harm(directory)
    with opened(directory) as outbox:
        assert not any(is_damaged(outbox, lane) for lane in sound[1])


def _missing(path: Path) -> None:
    path.unlink()


def _garbage(path: Path) -> None:
    path.write_bytes(b"\xff{}\n" * 9)


def _flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def _newer(path: Path) -> None:
    path.write_bytes(b'{"schema":2}\n47d71bd9\n')


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("spoil", [_missing, _garbage, _flipped, _newer])
def test_without_a_passport_nothing_is_declared(
    sound: tuple[Path, list[Lane]], tmp_path: Path, harm: Harm, spoil: Harm
) -> None:
    directory = copy(sound[0], tmp_path / "o", is_original=True)
    spoil(directory / "passport")
    harm(directory)
    with opened(directory) as outbox:
        assert not any(is_damaged(outbox, lane) for lane in sound[1])
        assert outbox.append([draft()], 2) == [1]


def test_a_passport_of_an_earlier_opening_proves_nothing(sound: tuple[Path, list[Lane]], tmp_path: Path) -> None:
    directory = copy(sound[0], tmp_path / "o", is_original=True)
    stale = (directory / "passport").read_bytes()
    with opened(directory):
        pass
    with opened(directory):
        pass
    (directory / "passport").write_bytes(stale)
    delete(directory)
    with opened(directory) as outbox:
        assert not any(is_damaged(outbox, lane) for lane in sound[1])
        [sentence] = outbox.news
        assert "nothing proves" in sentence


def test_where_no_time_of_birth_is_known_nothing_is_proved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_birth", lambda path: f"{path.stat().st_ino} 0" if path.exists() else None)
    lanes = build(tmp_path / "o")
    delete(tmp_path / "o")
    with opened(tmp_path / "o") as outbox:
        assert not any(is_damaged(outbox, lane) for lane in lanes)


def test_a_passport_that_cannot_be_written_is_gone(tmp_path: Path) -> None:
    lanes = build(tmp_path / "o")
    (tmp_path / "o" / "passport.new").mkdir()
    with opened(tmp_path / "o") as outbox:
        assert outbox.append([draft()], 2) == [5], "it is told and no more"
        assert not (tmp_path / "o" / "passport").exists()
        (tmp_path / "o" / "passport.new").rmdir()
        outbox.append([draft()], 2)
    delete(tmp_path / "o")
    with opened(tmp_path / "o") as outbox:
        assert all(is_damaged(outbox, lane) for lane in lanes), "it was written as soon as that was possible"


def test_an_epoch_that_ended_with_a_boot_is_answered_for_and_one_that_another_may_have_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build(tmp_path / "o")
    monkeypatch.setattr(identity, "find_boot", lambda: "second")
    with opened(tmp_path / "o") as outbox:
        outbox.append([draft()], 2)
        second = Lane("m", outbox.epoch)
        assert (outbox.former(first[0]), second.epoch) == (Former(4, is_damaged=False), outbox.epoch)
    directory = copy(tmp_path / "o", tmp_path / "forked", is_original=True)
    delete(tmp_path / "o")
    with opened(tmp_path / "o") as outbox:
        assert all(is_damaged(outbox, lane) for lane in (*first, second))
    with opened(directory) as outbox:
        outbox.fork("the receiver knows numbers that were never given here")
        outbox.append([draft()], 2)
        third = Lane("m", outbox.epoch)
    delete(directory)
    with opened(directory) as outbox:
        assert is_damaged(outbox, third)
        assert not any(is_damaged(outbox, lane) for lane in (*first, second))


def test_of_many_lanes_that_are_lost_only_so_many_are_remembered(tmp_path: Path) -> None:
    with opened(tmp_path / "o") as outbox:
        outbox.append([draft(f"m{at}") for at in range(1200)], 1)
        lanes = list(outbox.held())
    delete(tmp_path / "o")
    with opened(tmp_path / "o") as outbox:
        assert len(outbox._database.lanes.states) == 1000
        assert all(is_damaged(outbox, lane) for lane in lanes), "by their epoch"


def test_what_was_mended_in_operation_is_answered_for_as_well(tmp_path: Path) -> None:
    [first, *_] = build(tmp_path / "o")
    with opened(tmp_path / "o") as outbox:
        outbox._database.rows.close()
        overwrite(tmp_path / "o")
        assert outbox.append([draft()], 2) == [1]
        second = Lane("m", outbox.epoch)
        assert is_damaged(outbox, first)
    delete(tmp_path / "o")
    with opened(tmp_path / "o") as outbox:
        assert all(is_damaged(outbox, lane) for lane in (first, second))


# --- a log that has lost its end ---


def log(directory: Path) -> Path:
    return directory / "queue" / "cache.db-wal"


def delete_log(directory: Path) -> None:
    log(directory).unlink()


def cut_log(directory: Path) -> None:
    os.truncate(log(directory), log(directory).stat().st_size // 2)


def empty_log(directory: Path) -> None:
    os.truncate(log(directory), 0)


def flip_log(directory: Path) -> None:
    with log(directory).open("r+b") as file:
        file.seek(log(directory).stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 4]))


LOG_HARMS = [delete_log, cut_log, empty_log, flip_log]


def kill_with_a_log(directory: Path) -> Lane:
    """Twelve numbers are given in two openings, the last ten of them stand in the log."""

    def life(outbox: DiskOutbox) -> None:
        for _ in range(10):
            outbox.append([draft()], 2)

    with opened(directory) as outbox:
        outbox.append([draft(), draft()], 1)
        lane = Lane("m", outbox.epoch)
    killed(directory, life)
    return lane


def test_a_log_that_is_whole_is_no_damage(tmp_path: Path) -> None:
    lane = kill_with_a_log(tmp_path)
    assert log(tmp_path).stat().st_size > 40_000
    with opened(tmp_path) as outbox:
        assert (outbox.news, outbox.epoch) == ((), lane.epoch)
        assert outbox.held()[lane].last == 12


@pytest.mark.parametrize("harm", LOG_HARMS)
def test_a_log_that_lost_its_end_is_noticed_by_the_original(tmp_path: Path, harm: Harm) -> None:
    lane = kill_with_a_log(tmp_path)
    harm(tmp_path)
    with opened(tmp_path) as outbox:
        instance = outbox.instance
        found = outbox.former(lane)
        assert found is not None and found.is_damaged
        assert 2 <= found.last < 12
        assert outbox.held()[lane].waiting == ((1, found.last),), "what is there is sent under its old numbers"
        assert "has lost its end" in outbox.news[0]
        assert DESTROYED in outbox.news[0]
        assert outbox.append([draft()], 3) == [1], "no number is given twice"
        epoch = outbox.epoch
    with opened(tmp_path) as outbox:
        assert (outbox.news, outbox.epoch, outbox.instance) == ((), epoch, instance)


@pytest.mark.parametrize("harm", LOG_HARMS)
def test_a_copy_declares_nothing_of_a_log_that_lost_its_end(tmp_path: Path, harm: Harm) -> None:
    lane = kill_with_a_log(tmp_path / "o")
    directory = copy(tmp_path / "o", tmp_path / "copy", is_original=False)
    harm(directory)
    with opened(directory) as outbox:
        assert not is_damaged(outbox, lane)
        assert outbox.epoch != lane.epoch


@pytest.mark.parametrize("harm", LOG_HARMS)
def test_a_log_that_lost_its_end_is_noticed_without_a_passport(tmp_path: Path, harm: Harm) -> None:
    """Nothing proves that this is the original, so nothing is declared; but no number is given again."""
    lane = kill_with_a_log(tmp_path)
    harm(tmp_path)
    (tmp_path / "passport").unlink()
    with opened(tmp_path) as outbox:
        assert not is_damaged(outbox, lane)
        assert outbox.held()[lane].last < 12
        outbox.append([draft()], 3)
        assert outbox.epoch != lane.epoch
        assert outbox.held()[lane].last < 12


@pytest.mark.parametrize("spoil", [_missing, _garbage, _flipped])
def test_without_a_tally_the_passport_still_knows_how_many_transactions_there_were_at_the_opening(
    tmp_path: Path, spoil: Harm
) -> None:
    lane = kill_with_a_log(tmp_path)
    spoil(tmp_path / "tally")
    delete_log(tmp_path)
    with opened(tmp_path) as outbox:
        assert is_damaged(outbox, lane)


def test_an_old_database_in_the_place_of_the_new_one_has_lost_its_end(tmp_path: Path) -> None:
    """In place, so that even the files are the same ones, and without a new opening in between."""
    backup: dict[Path, bytes] = {}

    def life(outbox: DiskOutbox) -> None:
        outbox.append([draft(), draft()], 1)
        outbox._database.rows.checkpoint()
        backup.update((path, path.read_bytes()) for path in (tmp_path / "o" / "queue").iterdir())
        outbox.append([draft(), draft()], 2)
        outbox.close()
        for path, content in backup.items():
            path.write_bytes(content)

    dies(lambda: life(open_outbox(tmp_path / "o")))
    with opened(tmp_path / "o") as outbox:
        [lane] = outbox.held()
        assert outbox.former(lane) == Former(2, is_damaged=True)


# --- a log without its database ---


@pytest.mark.parametrize("is_emptied", [False, True])
def test_what_a_log_holds_is_read_where_the_database_file_is_gone(tmp_path: Path, *, is_emptied: bool) -> None:
    lane = kill_with_a_log(tmp_path)
    whole = log(tmp_path).read_bytes()
    os.truncate(tmp_path / "queue" / "cache.db", 0)
    if not is_emptied:
        (tmp_path / "queue" / "cache.db").unlink()
    with opened(tmp_path) as outbox:
        assert outbox.former(lane) == Former(12, is_damaged=True)
        assert [one.seq for one in outbox.pending(lane, 1, 99, 99)] == list(range(1, 13))
        assert outbox.damaged is not None
        assert (outbox.damaged / "cache.db-wal").read_bytes() == whole
        assert "12 waiting batches were read from it" in outbox.news[0]
        assert outbox.append([draft()], 3) == [1]


def test_a_copy_reads_its_log_and_declares_nothing(tmp_path: Path) -> None:
    lane = kill_with_a_log(tmp_path / "o")
    directory = copy(tmp_path / "o", tmp_path / "copy", is_original=False)
    (directory / "queue" / "cache.db").unlink()
    with opened(directory) as outbox:
        assert outbox.former(lane) == Former(12, is_damaged=False)
        assert outbox.held()[lane].waiting == ((1, 12),)


def test_of_a_large_database_that_is_gone_its_log_holds_the_newest(tmp_path: Path) -> None:
    def life(outbox: DiskOutbox) -> None:
        for _ in range(60):
            outbox.append([draft() for _ in range(100)], 1)

    killed(tmp_path, life)
    (tmp_path / "queue" / "cache.db").unlink()
    with opened(tmp_path) as outbox:
        [lane] = outbox.held()
        held = outbox.held()[lane]
        assert (held.last, held.waiting[-1][1]) == (6000, 6000)
        assert outbox.stats().batches > 300
        assert outbox.stats().batches + sum(one.last - one.first + 1 for one in held.dropped) == 6000


@pytest.mark.parametrize("spoil", [_garbage, _flipped, empty_log, cut_log])
def test_a_log_without_its_database_that_is_damaged_too_stops_nobody(tmp_path: Path, spoil: Harm) -> None:
    lane = kill_with_a_log(tmp_path)
    (tmp_path / "queue" / "cache.db").unlink()
    spoil(tmp_path if spoil in (empty_log, cut_log) else log(tmp_path))
    with opened(tmp_path) as outbox:
        assert is_damaged(outbox, lane)
        assert outbox.append([draft()], 3) == [1]


# --- a crash between any two steps ---


class Steps:
    """Counts what changes the disk; the process is gone before the one with number `last` is done."""

    def __init__(self, last: int) -> None:
        self._left = last

    def take(self) -> None:
        self._left -= 1
        if self._left < 0:
            os._exit(9)

    def watch(self, name: str) -> None:
        real = getattr(os, name)

        def step(*arguments: Any, **options: Any) -> Any:
            self.take()
            return real(*arguments, **options)

        setattr(os, name, step)

    def watch_all(self) -> None:
        for name in ("open", "write", "pwrite", "fsync", "replace", "rename", "unlink", "mkdir"):
            self.watch(name)
        steps, connect = self, sqlite3.connect

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
                if not sql.startswith(("SELECT", "PRAGMA")) and "Settings" not in sql:
                    steps.take()
                return super().execute(sql, *parameters)

        sqlite3.connect = lambda *arguments, **options: connect(*arguments, **{"factory": Connection, **options})


def opens(step: int, directory: Path) -> None:
    Steps(step).watch_all()
    open_outbox(directory).append([draft()], 5)


def forks(step: int, directory: Path) -> None:
    outbox = open_outbox(directory)
    outbox._database.rows.close()
    Steps(step).watch_all()
    outbox.fork("the receiver knows numbers that were never given here")
    outbox.append([draft()], 5)


def crash_at(step: int, directory: Path, job: Callable[[int, Path], None]) -> bool:
    """Whether it came to an end before it."""
    child = os.fork()
    if child == 0:
        try:
            job(step, directory)
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, 9)
    return code == 0


def each_crash(
    sound: Path, folder: Path, harm: Harm, *, is_original: bool, job: Callable[[int, Path], None] = opens
) -> Iterator[Path]:
    """A harmed outbox for each step of the job, at which that crashed."""
    for step in range(1000):
        directory = copy(sound, folder / f"{step}", is_original=is_original)
        harm(directory)
        is_done = crash_at(step, directory, job)
        yield directory
        if is_done:
            assert step > 12
            return
    raise AssertionError("it never ends")


def nothing(_: Path) -> None:
    """No harm is done."""


@pytest.mark.parametrize("harm", [*HARMS, nothing])
def test_after_a_crash_at_any_step_the_original_still_answers(quick: Path, harm: Harm) -> None:
    lanes = build(quick / "o")
    with opened(copy(quick / "o", quick / "same", is_original=True)) as outbox:
        instance = outbox.instance
    for directory in each_crash(quick / "o", quick, harm, is_original=True):
        if harm is nothing:
            delete(directory)
        with opened(directory) as outbox:
            assert all(is_damaged(outbox, lane) for lane in lanes), directory
            assert outbox.instance == instance
            given = outbox.append([draft()], 6)
            assert given[0] in (1, 2)
        shutil.rmtree(directory)


@pytest.mark.parametrize("harm", [lose_the_main_record, delete, nothing])
def test_after_a_crash_at_any_step_a_copy_still_declares_nothing(quick: Path, harm: Harm) -> None:
    lanes = build(quick / "o")
    for directory in each_crash(quick / "o", quick, harm, is_original=False):
        if harm is nothing:
            delete(directory)
        with opened(directory) as outbox:
            assert not any(is_damaged(outbox, lane) for lane in lanes), directory
        shutil.rmtree(directory)


def test_a_crash_at_any_step_of_an_opening_is_no_loss(quick: Path) -> None:
    lanes = build(quick / "o")
    for directory in each_crash(quick / "o", quick, nothing, is_original=True):
        with opened(directory) as outbox:
            assert outbox.news == (), directory
            assert outbox.epoch == lanes[0].epoch
        shutil.rmtree(directory)


def test_whoever_begins_a_new_epoch_because_of_another_answers_no_more_for_the_old_one(quick: Path) -> None:
    """Whichever came first, the crash or the new epoch."""
    lanes = build(quick / "o")
    for directory in each_crash(quick / "o", quick, nothing, is_original=True, job=forks):
        wreck = copy(directory, directory.with_suffix(".wreck"), is_original=True)
        delete(wreck)
        with opened(directory) as outbox:
            has_forked = outbox.epoch != lanes[0].epoch
        with opened(wreck) as outbox:
            assert not (has_forked and any(is_damaged(outbox, lane) for lane in lanes)), directory
        shutil.rmtree(directory)
        shutil.rmtree(wreck)
