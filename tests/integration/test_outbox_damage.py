"""A damaged outbox: set aside whole, what is readable keeps its lane and number, what is not is declared, said loudly.

Nothing that a disk can do to the files may stop the agent, hand out a batch that is not as it was appended, or give a
number twice.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.outbox.contract import HIGH, NORMAL, Draft, Encoded, Former, GroupDefinition, Lane
from agent.outbox.disk import DiskOutbox
from protocols.uplink import ranges

S = 1_000_000
Content = dict[tuple[Lane, int], bytes]


def draft(body: bytes, machine: str = "m", priority: int = NORMAL) -> Draft:
    definitions = (GroupDefinition(machine.encode() + b"00001", "plc", "main", b"definition of " + machine.encode()),)
    return Draft(
        machine, lambda epoch, seq: Encoded(f"{epoch} {seq} ".encode() + body, definitions), 5, priority=priority
    )


def build(directory: Path, chance: random.Random, count: int = 300) -> Content:
    """Two machines, two priorities; some confirmed and kept, some let go of. What was appended."""
    outbox = DiskOutbox(directory, reserve_bytes=0, grace_s=3600)
    for _ in range(count // 10):
        outbox.append(
            [
                draft(chance.randbytes(chance.choice((40, 700, 6000))), chance.choice("ab"), chance.choice((0, HIGH)))
                for _ in range(10)
            ],
            chance.randrange(S),
        )
    outbox.confirmed(Lane("a", outbox.epoch), 20, (), 1)
    outbox.tend(1)
    content = everything(outbox)
    outbox.close()
    return content


def everything(outbox: DiskOutbox) -> Content:
    return {(lane, one.seq): one.payload for lane in outbox.held() for one in outbox.pending(lane, 1, 1 << 40, 1 << 20)}


def check(outbox: DiskOutbox, before: Content, records_lost: bool = False) -> int:
    """What is here is as it was; what waited and is not here is declared. How many are here."""
    found = everything(outbox)  # reading finds what is unreadable, and may mend the whole
    found = {key: payload for key, payload in everything(outbox).items() if key[0].machine in "ab"}
    assert found.items() <= before.items()
    held = outbox.held()
    for lane, seq in before:
        if (lane, seq) in found or records_lost:
            continue
        gone = [(one.first, one.last) for one in held[lane].dropped] if lane in held else []
        was_confirmed = lane.machine == "a" and seq <= 20
        assert ranges.contains(gone, seq) or was_confirmed, f"{lane} {seq} is neither here nor declared"
    given = {lane: max(seq for name, seq in before if name == lane) for lane, _ in before}
    for machine in "ab":
        for priority in (0, HIGH):
            [seq] = outbox.append([draft(b"new", machine, priority)], 5)
            [lane] = [
                name
                for name, one in outbox.held().items()
                if name.machine == machine
                and one.priority == priority
                and ranges.contains(one.waiting, seq)
                and outbox.pending(name, seq, seq, 1)[0].payload.endswith(b"new")
            ]
            assert seq > given.get(lane, 0), "no number is given twice"
    stats = outbox.stats()
    assert stats.batches == sum(ranges.count(one.waiting) for one in outbox.held().values())
    waiting = [
        len(batch.payload)
        for lane, one in outbox.held().items()
        for first, last in one.waiting
        for batch in outbox.pending(lane, first, last, 1 << 20)
    ]
    assert stats.bytes == sum(waiting)
    return len(found)


def flip(path: Path, chance: random.Random, count: int) -> None:
    with path.open("r+b") as file:
        size = path.stat().st_size
        for _ in range(count):
            at = chance.randrange(size)
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ (1 << chance.randrange(8))]))


def overwrite_page(path: Path, chance: random.Random, count: int) -> None:
    with path.open("r+b") as file:
        for _ in range(count):
            file.seek(4096 * chance.randrange(1, path.stat().st_size // 4096))
            file.write(chance.choice((bytes(4096), chance.randbytes(4096))))


def truncate(path: Path, chance: random.Random, _count: int) -> None:
    os.truncate(path, chance.randrange(path.stat().st_size))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Content]:
    directory = tmp_path_factory.mktemp("sound") / "o"
    return directory, build(directory, random.Random(7))


def copy_of(sound: Path, to: Path) -> Path:
    """With the marker that a copy would not have: the same outbox for all that it can tell."""
    shutil.copytree(sound, to)
    (to / "life").unlink()
    (to / "life").hardlink_to(sound / "life")
    return to


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("harm", [flip, overwrite_page, truncate])
def test_whatever_happens_to_the_file(
    sound: tuple[Path, Content], tmp_path: Path, harm: Callable[[Path, random.Random, int], None], seed: int
) -> None:
    chance = random.Random(seed)
    directory = copy_of(sound[0], tmp_path / "o")
    database = directory / "queue" / "cache.db"
    whole = database.stat().st_size
    harm(database, chance, chance.choice((1, 1, 5, 40)))
    left = database.stat().st_size / whole
    outbox = DiskOutbox(directory, reserve_bytes=0, grace_s=3600)
    records_lost = outbox.damaged is not None and not any(lane in outbox.held() for lane, _ in sound[1])
    here = check(outbox, sound[1], records_lost)
    assert here >= (0.5 if left == 1 else 0.7 * left) * len(sound[1]), "what can be read is there"
    if outbox.damaged is not None:
        assert any("was damaged" in sentence for sentence in outbox.news)
    outbox.close()
    again = DiskOutbox(directory, reserve_bytes=0, grace_s=3600)
    assert again.news == ()
    again.close()


def test_a_file_that_is_no_database_is_set_aside_whole_and_a_new_epoch_begins(tmp_path: Path) -> None:
    build(tmp_path / "o", random.Random(1))
    outbox = DiskOutbox(tmp_path / "o", reserve_bytes=0)
    epoch = outbox.epoch
    outbox.close()
    database = tmp_path / "o" / "queue" / "cache.db"
    damaged = b"not a database" * 1000
    database.write_bytes(damaged)
    again = DiskOutbox(tmp_path / "o", reserve_bytes=0)
    assert again.epoch != epoch
    assert again.damaged is not None
    assert (again.damaged / "cache.db").read_bytes() == damaged
    assert "set aside whole as damaged-" in again.news[0]
    assert again.append([draft(b"x")], 1) == [1]
    again.close()


def test_one_damaged_page_costs_what_was_on_it_and_no_more(tmp_path: Path) -> None:
    before = build(tmp_path / "o", random.Random(3), count=500)
    database = tmp_path / "o" / "queue" / "cache.db"
    connection = sqlite3.connect(database)
    [(leaf,)] = connection.execute(
        "SELECT pageno FROM dbstat WHERE name = 'Cache' AND pagetype = 'leaf' ORDER BY pageno LIMIT 1 OFFSET 40"
    ).fetchall()
    connection.close()
    with database.open("r+b") as file:
        file.seek(4096 * (leaf - 1))
        file.write(b"\xff" * 4096)
    outbox = DiskOutbox(tmp_path / "o", reserve_bytes=0, grace_s=3600)
    old = outbox.epoch
    assert len(outbox.news) == 0, "nobody has noticed yet"
    here = check(outbox, before)
    assert "was damaged" in outbox.news[0], "found in operation, and mended"
    assert outbox.epoch != old
    assert len(before) - here < 40
    assert outbox.definition(Lane("a", old), b"a00001") is not None
    assert outbox.stats().dropped >= len(before) - here - 20
    outbox.close()


def test_a_damaged_tree_that_gives_rows_twice_is_salvaged(tmp_path: Path) -> None:
    """Two pointers of an inner page (sqlite.org/fileformat2.html, 1.6) lead to the same leaf."""
    before = build(tmp_path / "o", random.Random(4))
    database = tmp_path / "o" / "queue" / "cache.db"
    connection = sqlite3.connect(database)
    [(inner,)] = connection.execute(
        "SELECT pageno FROM dbstat WHERE name = 'Cache' AND pagetype = 'internal' ORDER BY ncell DESC LIMIT 1"
    ).fetchall()
    connection.close()
    with database.open("r+b") as file:
        file.seek(4096 * (inner - 1))
        page = file.read(4096)
        first, second = struct.unpack_from(">2H", page, 12)
        file.seek(4096 * (inner - 1) + second)
        file.write(page[first : first + 4])
    (tmp_path / "o" / "damaged").touch()  # as it is left by a call that has found it
    outbox = DiskOutbox(tmp_path / "o", reserve_bytes=0, grace_s=3600)
    assert "was damaged" in outbox.news[0]
    assert 0 < check(outbox, before) < len(before)
    outbox.close()


def test_one_damaged_payload_is_declared_and_the_line_goes_on(tmp_path: Path) -> None:
    outbox = DiskOutbox(tmp_path, reserve_bytes=0)
    outbox.append([draft(b"x" * 500) for _ in range(5)], 1)
    outbox.close()
    connection = sqlite3.connect(tmp_path / "queue" / "cache.db")
    connection.execute("UPDATE Cache SET value = CAST('changed' AS BLOB) WHERE key = 3")
    connection.execute("UPDATE Cache SET value = 'text' WHERE key = 4")
    connection.commit()
    connection.close()
    outbox = DiskOutbox(tmp_path, reserve_bytes=0)
    epoch, lane = outbox.epoch, Lane("m", outbox.epoch)
    assert [one.seq for one in outbox.pending(lane, 1, 5, 5)] == [1, 2, 5]
    held = outbox.held()[lane]
    assert held.waiting == ((1, 2), (5, 5))
    assert [(one.first, one.last, one.reason) for one in held.dropped] == [(3, 4, "unreadable in the outbox")]
    assert (outbox.epoch, outbox.damaged) == (epoch, None)
    assert outbox.stats().bytes == sum(len(one.payload) for one in outbox.pending(lane, 1, 5, 5))
    assert outbox.stats().dropped == 2
    outbox.close()


def test_a_row_that_is_missing_shows_that_the_whole_is_damaged(tmp_path: Path) -> None:
    outbox = DiskOutbox(tmp_path, reserve_bytes=0)
    old = Lane("m", outbox.epoch)
    outbox.append([draft(b"x" * 50) for _ in range(5)], 1)
    outbox.close()
    connection = sqlite3.connect(tmp_path / "queue" / "cache.db")
    connection.execute("DELETE FROM Cache WHERE key = 3")
    connection.commit()
    connection.close()
    outbox = DiskOutbox(tmp_path, reserve_bytes=0)
    assert [one.seq for one in outbox.pending(old, 1, 5, 5)] == [1, 2, 4, 5]
    assert "1 are lost" in outbox.news[0]
    assert outbox.epoch != old.epoch
    assert [(one.first, one.last, one.reason) for one in outbox.held()[old].dropped] == [
        (3, 3, "lost with a damaged outbox")
    ]
    assert outbox.former(old) == Former(5, is_damaged=True)
    outbox.close()
    outbox = DiskOutbox(tmp_path, reserve_bytes=0)
    assert outbox.former(old) == Former(5, is_damaged=True)
    outbox.close()
    shutil.copytree(tmp_path, tmp_path / "copy")
    copied = DiskOutbox(tmp_path / "copy", reserve_bytes=0)
    assert copied.former(old) == Former(5, is_damaged=False), "a copy does not answer for what it cannot know"
    copied.close()


def test_damage_in_operation_does_not_stop_appending(tmp_path: Path) -> None:
    before = build(tmp_path / "o", random.Random(5))
    outbox = DiskOutbox(tmp_path / "o", reserve_bytes=0, grace_s=3600)
    epoch = outbox.epoch
    database = tmp_path / "o" / "queue" / "cache.db"
    with database.open("r+b") as file:
        for page in range(2, database.stat().st_size // 4096):
            file.seek(4096 * page)
            file.write(b"\xee" * 4096)
    outbox._database.rows.close()  # so that nothing of it is in memory
    assert outbox.append([draft(b"new")], 1) == [1]
    assert outbox.epoch != epoch
    assert any("was damaged" in sentence for sentence in outbox.news)
    assert check(outbox, before) == 0
    outbox.close()


def test_a_lane_whose_record_is_lost_is_known_from_the_register(tmp_path: Path) -> None:
    before = build(tmp_path / "o", random.Random(9))
    connection = sqlite3.connect(tmp_path / "o" / "queue" / "cache.db")
    connection.execute("UPDATE Cache SET access_count = 1 WHERE key BETWEEN -40000 AND -2")
    connection.commit()
    connection.close()
    outbox = DiskOutbox(tmp_path / "o", reserve_bytes=0, grace_s=3600)
    assert outbox.damaged is not None
    assert everything(outbox) == before
    lanes = {lane for lane, _ in before}
    for lane in lanes:
        held = outbox.held()[lane]
        assert held.kept == (), "what was confirmed is not known: it is sent again and stored once"
        assert held.offered == ((1, held.last),)
        assert held.refs == (lane.machine.encode() + b"00001",)
    check(outbox, before)
    outbox.close()


def test_a_crash_while_salvaging_begins_it_again(tmp_path: Path) -> None:
    before = build(tmp_path / "o", random.Random(11))
    place = tmp_path / "o"
    (place / "queue").rename(place / "damaged-20260101T000000")
    (place / "damaged").write_text("damaged-20260101T000000")
    (place / "queue.new").mkdir()
    (place / "queue.new" / "cache.db").write_bytes(b"half done")
    outbox = DiskOutbox(place, reserve_bytes=0, grace_s=3600)
    assert everything(outbox) == before
    assert not (place / "damaged").exists()
    assert not (place / "queue.new").exists()
    outbox.close()
    (place / "damaged").write_text("damaged-20260101T000000")  # the crash came after the last step
    outbox = DiskOutbox(place, reserve_bytes=0, grace_s=3600)
    assert everything(outbox) == before
    outbox.close()


def test_only_so_many_damaged_databases_are_left_lying(tmp_path: Path) -> None:
    said = []
    for _ in range(5):
        outbox = DiskOutbox(tmp_path, reserve_bytes=0)
        said += [sentence for sentence in outbox.news if "was deleted" in sentence]
        outbox.close()
        (tmp_path / "queue" / "cache.db").write_bytes(b"not a database" * 1000)
    assert len(list(tmp_path.glob("damaged-*"))) == 3
    assert len(said) == 1


def _delete_database(queue: Path) -> None:
    shutil.rmtree(queue)


def _empty_database(queue: Path) -> None:
    """As after a crash, where all is in the log yet, and the log is cut short."""
    for file in queue.iterdir():
        os.truncate(file, 0)


@pytest.mark.parametrize("lose", [_delete_database, _empty_database])
def test_a_database_that_is_gone_is_said(tmp_path: Path, lose: Callable[[Path], None]) -> None:
    build(tmp_path / "o", random.Random(1), count=10)
    lose(tmp_path / "o" / "queue")
    outbox = DiskOutbox(tmp_path / "o", reserve_bytes=0)
    [sentence] = outbox.news
    assert "was gone or empty" in sentence
    assert outbox.held() == {}
    outbox.close()
    outbox = DiskOutbox(tmp_path / "o", reserve_bytes=0)
    assert outbox.news == ()
    outbox.close()
