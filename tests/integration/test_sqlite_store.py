"""The SQLite store as a file: beside other programs, killed, full, locked, and not what it should be."""

from __future__ import annotations

import resource
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from cloud.store import sqlite_catalog, sqlite_clock, sqlite_retention
from cloud.store.contract import Committed, Item, Retention, StoreAway, StoreError, Totals, Undecodable
from cloud.store.sqlite import SqliteStore
from cloud.store.sqlite_schema import APPLICATION_ID, MIGRATIONS
from protocols.uplink.mark import ClockMark
from protocols.uplink.status import Clock, MachineNumbers
from protocols.values import Quality, ValueType
from tests.contract.store_cases import GATEWAY, NOW, OVEN, PLANT, PRESS, beat, one_column, telemetry, with_plant
from tests.contract.store_cases.sqlite import readings

ROOT = Path(__file__).parents[2]
NEW, DUPLICATE = Committed.NEW, Committed.DUPLICATE


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    with opened(path) as found:
        with_plant(found)
        yield found


@contextmanager
def opened(path: Path, *, busy_timeout_s: float = 5.0) -> Iterator[SqliteStore]:
    store = SqliteStore(path, busy_timeout_s=busy_timeout_s)
    try:
        yield store
    finally:
        store.close()
        store.close()  # twice is fine


def python(code: str, path: Path) -> subprocess.Popen[str]:
    """Another process with the file's path as its argument."""
    command = [sys.executable, "-c", code, str(path)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def state(path: Path, store: SqliteStore) -> object:
    """All there is to see."""
    return (
        readings(path),
        store.totals(),
        store.machines(),
        store.gateways(),
        store.latest(),
        store.ledgers(PRESS),
        store.dead_letters(),
    )


# --- the file ---


def test_the_file_is_private_and_what_is_in_it_is_there_after_reopening(path: Path, store: SqliteStore) -> None:
    group: list[Item] = [telemetry(1), beat(), telemetry(3)]
    store.commit(group)
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    before = state(path, store)
    with opened(path) as again:
        assert state(path, again) == before
        assert list(again.commit(group)) == [DUPLICATE, Committed.BEAT, DUPLICATE]


def test_every_commit_is_synced(store: SqliteStore) -> None:
    with store._connection.snapshot() as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_no_such_directory(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"missing/store\.db: the directory .* does not exist"):
        SqliteStore(tmp_path / "missing" / "store.db")


def test_not_a_database(path: Path) -> None:
    path.write_bytes(b"Time;Tag;Value\n" * 100)
    with pytest.raises(StoreError, match=r"store\.db: the file is not a SQLite database"):
        SqliteStore(path)
    assert path.read_bytes() == b"Time;Tag;Value\n" * 100


def test_another_programs_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE recipes (name TEXT)")
    with pytest.raises(StoreError, match="another program's SQLite database"):
        SqliteStore(path)


def test_a_newer_schema(path: Path, store: SqliteStore) -> None:
    with closing(sqlite3.connect(path)) as newer:
        newer.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    with pytest.raises(StoreError, match=f"version {len(MIGRATIONS) + 1}, this program knows up to {len(MIGRATIONS)}"):
        SqliteStore(path)


def test_a_directory_instead_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be opened"):
        SqliteStore(tmp_path)


def test_a_read_only_file(path: Path, store: SqliteStore) -> None:
    with store._connection.snapshot() as connection:
        connection.execute("PRAGMA query_only = ON")  # what a read-only file answers, whoever runs this test
    with pytest.raises(StoreError, match="read-only") as raised:
        store.commit([telemetry(1)])
    assert not isinstance(raised.value, StoreAway)


def test_a_damaged_file(path: Path) -> None:
    with opened(path) as store:
        with_plant(store)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))
    with pytest.raises(StoreError, match=r"store\.db: the database file is damaged; restore it from a backup"):
        SqliteStore(path)


def test_a_closed_store_says_so_in_a_sentence(path: Path) -> None:
    with opened(path) as store:
        pass
    with pytest.raises(StoreError, match="closed"):
        store.tenants()


# --- away, and back ---


def test_full_disk_changes_nothing_and_the_same_group_succeeds_later(path: Path, store: SqliteStore) -> None:
    store.commit([telemetry(1)])
    before = state(path, store)
    group = [telemetry(seq, one_column(ValueType.STRING, "x" * 4000, tag=f"t{seq}")) for seq in range(2, 40)]
    with store._connection.snapshot() as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 4}")
    for _ in range(2):
        with pytest.raises(StoreAway, match="disk is full; make room"):
            store.commit([beat(), telemetry(1, content="other"), *group])
        assert state(path, store) == before
    with store._connection.snapshot() as connection:
        connection.execute("PRAGMA max_page_count = 1000000")
    assert list(store.commit(group)) == [NEW] * len(group)
    assert store.totals().readings == 39


def test_a_disk_that_fails_in_mid_write_changes_nothing(path: Path, store: SqliteStore) -> None:
    """The kernel refuses to let a file grow: the write of the commit itself fails."""
    before = state(path, store)
    group = [telemetry(seq, one_column(ValueType.STRING, "x" * 4000)) for seq in range(1, 100)]
    wal = Path(f"{path}-wal").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (wal + 100_000, hard))
    try:
        with pytest.raises(StoreAway, match="disk"):
            store.commit(group)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert state(path, store) == before
    assert list(store.commit(group)) == [NEW] * len(group)


def test_a_lock_held_by_another_program(path: Path, store: SqliteStore) -> None:
    group = [telemetry(1), telemetry(2)]
    with opened(path, busy_timeout_s=0.05) as impatient, closing(sqlite3.connect(path)) as other:
        impatient.commit([telemetry(1, machine=OVEN)])
        before = state(path, impatient)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreAway, match="another program holds its lock"):
            impatient.commit(group)
        assert state(path, impatient) == before  # reading goes on meanwhile
        other.execute("ROLLBACK")
        assert list(impatient.commit(group)) == [NEW, NEW]


def test_a_failure_of_any_kind_rolls_back_and_is_forgotten(path: Path, store: SqliteStore) -> None:
    """The ids of machine, epoch and series that were made in a failed transaction must not be used again."""
    bad = telemetry(2, one_column(ValueType.INT, 2**70))  # no envelope lets this through
    store.commit([beat()])
    before = state(path, store)
    with pytest.raises(OverflowError):
        store.commit([telemetry(1), bad])
    assert state(path, store) == before
    assert list(store.commit([telemetry(1, machine=OVEN), telemetry(1)])) == [NEW, NEW]
    assert {machine for machine, *_ in readings(path)} == {"press-1", "oven-1"}


# --- beside other programs ---

ADD_PLANT = """
import sys
from pathlib import Path
from cloud.store.sqlite import SqliteStore
from tests.contract.store_cases import with_plant
store = SqliteStore(Path(sys.argv[1]))
with_plant(store)
"""

ADD_MANY = """
import sys
from pathlib import Path
from cloud.store.sqlite import SqliteStore
store = SqliteStore(Path(sys.argv[1]), busy_timeout_s=60)
for number in range(40):
    store.add_tenant(f"tenant-{number}")
    print(number, flush=True)
"""


def test_a_plant_added_by_another_process_is_known_at_the_next_commit(path: Path) -> None:
    with opened(path) as store:
        assert list(store.commit([telemetry(1)])) == [Committed.UNKNOWN]
        with python(ADD_PLANT, path) as process:
            assert process.wait() == 0
        assert list(store.commit([telemetry(1)])) == [NEW]


def test_another_process_writes_while_this_one_commits(path: Path) -> None:
    with opened(path, busy_timeout_s=60) as store, python(ADD_MANY, path) as process:
        with_plant(store)
        seq = 0
        while process.poll() is None:
            seq += 1
            assert list(store.commit([telemetry(seq)])) == [NEW]
        assert process.returncode == 0
        assert len(store.tenants()) == 41
        assert store.ledgers(PRESS)[0].stored == ((1, seq),)


def test_what_another_store_has_made_is_seen_and_used(path: Path, store: SqliteStore) -> None:
    """Both remember ids: neither may go on with what the other has changed since."""
    with opened(path) as other:
        for seq in range(1, 7, 2):
            more = one_column(ValueType.INT, seq, tag=f"extra-{seq}")
            numbers = beat({"press-1": MachineNumbers(last_seq=0, sent_seq=seq + 100)})
            assert list(store.commit([telemetry(seq, more), numbers])) == [NEW, Committed.BEAT]
            again: list[Item] = [
                telemetry(seq, more),
                telemetry(seq + 1, more),
                numbers,
                telemetry(seq, more, epoch=f"e-{seq}"),
            ]
            assert list(other.commit(again)) == [DUPLICATE, NEW, Committed.BEAT, NEW]
        assert store.ledgers(PRESS) == other.ledgers(PRESS)
        assert (store.ledgers(PRESS)[0].stored, store.ledgers(PRESS)[0].known) == (((1, 6),), 105)
        assert store.machines()[0].tags == 3


def test_many_open_a_new_file_at_once(path: Path) -> None:
    failures: list[StoreError] = []

    def open_and_close() -> None:
        try:
            SqliteStore(path, busy_timeout_s=60).close()
        except StoreError as error:
            failures.append(error)

    threads = [threading.Thread(target=open_and_close) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with opened(path) as store:
        with_plant(store)
        assert list(store.commit([telemetry(1)])) == [NEW]


# --- killed ---

WRITE_FOR_EVER = """
import sys
from pathlib import Path
from cloud.store.sqlite import SqliteStore
from protocols.values import ValueType
from tests.contract.store_cases import NOW, one_column, telemetry
store = SqliteStore(Path(sys.argv[1]))
group = store.totals().events // 5
while True:
    columns = lambda seq: [one_column(ValueType.INT, seq, seq, tag=f"t{n}") for n in range(100)]
    numbers = range(group * 5 + 1, group * 5 + 6)
    store.commit([telemetry(seq, *columns(seq), times_us=[NOW + seq * 2, NOW + seq * 2 + 1]) for seq in numbers])
    group += 1
    print(group, flush=True)
"""


def test_a_killed_writer_leaves_each_group_whole_or_not_at_all(path: Path, store: SqliteStore) -> None:
    for after in (1, 3, 7):
        process = python(WRITE_FOR_EVER, path)
        assert process.stdout is not None
        told = [int(process.stdout.readline()) for _ in range(after)][-1]
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().split()
        process.wait()
        process.stdout.close()
        told = int(rest[-1]) if rest else told
        with opened(path) as again:
            totals = again.totals()
            assert totals.events >= told * 5  # what was told is there
            assert totals.events % 5 == 0  # and no group in part
            assert totals.readings == totals.events * 200
            assert totals.repeated == 0
            assert again.ledgers(PRESS)[0].stored == ((1, totals.events),)
            assert again.confirm(GATEWAY).machines["press-1"].through == totals.events
            assert {value.value for value in again.latest()} == {totals.events}
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


# --- older databases ---


def test_a_database_of_the_first_version_opens_and_has_everything_still(path: Path) -> None:
    """Made with the first version's statements; what the newer columns say of old rows is reckoned once."""
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        for statement in MIGRATIONS[0]:
            old.execute(statement)
        old.executescript(f"""
            PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 1;
            INSERT INTO tenants VALUES (1, 'acme'); INSERT INTO plants VALUES (1, 1, 'hessen', 'kassel');
            INSERT INTO machines VALUES (1, 1, 'press-1', 'approved', 'gw-1', {NOW}, 2);
            INSERT INTO gateways (plant_id, name, alive_us, session) VALUES (1, 'gw-1', {NOW}, 7);
            INSERT INTO epochs VALUES (1, 1, 'e1', 'gw-1', 3);
            INSERT INTO sequence_ledger VALUES (1, 1, 2, NULL);
            INSERT INTO series VALUES (1, 1, 'plc-1', 'speed', 'float64', '');
            INSERT INTO readings VALUES (1, {NOW}, 1.5, 0), (1, {NOW + 1}, 2.5, 0);
            INSERT INTO dead_letters (topic, digest, reason, first_us, last_us, payload)
                VALUES ('t', x'00', 'r', 1, 2, x'010203');
        """)
        old.execute("INSERT INTO telemetry_events VALUES (1, 1, ?, ?, 1, 9)", (telemetry(1).digest, NOW))
        old.execute("INSERT INTO telemetry_events VALUES (1, 2, ?, ?, 1, 9)", (telemetry(2).digest, NOW + 5))
    with opened(path) as store:
        assert store.totals() == Totals(events=2, readings=2, repeated=0, dead_letters=1)
        (found,) = store.ledgers(PRESS)
        assert (found.stored, found.known, found.readings, found.named) == (((1, 2),), 3, 2, False)
        assert store.confirm(GATEWAY).machines["press-1"].missing == [(3, 3)]
        (letter,) = store.dead_letters()
        assert (letter.size, store.dead_letter(letter.id)[1]) == (3, b"\1\2\3")
        said = beat({"press-1": MachineNumbers(last_seq=3, sent_seq=3)}, session=8)
        group: list[Item] = [telemetry(2), telemetry(3), said]
        assert list(store.commit(group)) == [DUPLICATE, NEW, Committed.BEAT]
        assert store.ledgers(PRESS)[0].readings == 3
        assert store.gateways()[0].heard.session == 8
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


# --- stuck ---

JUNK = Undecodable(PRESS.telemetry, b"damaged", "zstd: checksum", NOW)
SAID = {"press-1": MachineNumbers(last_seq=3, sent_seq=3)}


def sent_again(store: SqliteStore, *letters: Undecodable, until_s: int, from_s: int = 0) -> None:
    """What is missing comes again every ten seconds, as the same junk; the receiver looks every five."""
    for at_s in range(from_s, until_s, 5):
        now_us = NOW + at_s * 1_000_000
        if at_s % 10 == 0:
            store.commit([replace(letter, received_us=now_us) for letter in letters])
        store.tend(now_us)


def test_what_comes_again_and_again_and_can_never_be_read_stops_nobody_for_ever(store: SqliteStore) -> None:
    store.commit([telemetry(1), telemetry(3), beat(SAID)])
    sent_again(store, JUNK, until_s=90)
    assert list(store.losses(PRESS, "e1")) == [], "nothing in a hurry"
    sent_again(store, JUNK, from_s=90, until_s=130)
    (loss,) = store.losses(PRESS, "e1")
    assert (loss.first, loss.last) == (2, 2)
    assert loss.reason == f"dead letter {store.dead_letters()[0].id}: it came 5 times, and cannot be read"
    assert store.confirm(GATEWAY).machines["press-1"].through == 3
    assert list(store.commit([telemetry(2)])) == [NEW]
    assert store.ledgers(PRESS)[0].stored == ((1, 3),)


def test_as_many_letters_as_numbers_or_nothing_is_settled(store: SqliteStore) -> None:
    store.commit([telemetry(1), beat(SAID)])  # 2 and 3 are missing
    sent_again(store, JUNK, until_s=300)
    assert list(store.losses(PRESS, "e1")) == []
    sent_again(store, JUNK, replace(JUNK, payload=b"damaged, too"), from_s=300, until_s=500)
    (loss,) = store.losses(PRESS, "e1")
    assert (loss.first, loss.last) == (2, 3)
    first, second = sorted(letter.id for letter in store.dead_letters())
    assert loss.reason.startswith(f"one of the dead letters {first}, {second}:")


def test_a_gap_that_moves_or_letters_that_come_no_more_settle_nothing(store: SqliteStore) -> None:
    store.commit([telemetry(1), telemetry(3), beat(SAID)])
    for at_s in range(0, 400, 50):  # each time another number is missing
        last = 4 + at_s // 25
        said = {"press-1": MachineNumbers(last_seq=last, sent_seq=last)}
        store.commit([*(telemetry(seq) for seq in range(2, last)), beat(said)])
        sent_again(store, JUNK, from_s=at_s, until_s=at_s + 50)
    assert list(store.losses(PRESS, "e1")) == []
    store.commit([telemetry(18), beat({"press-1": MachineNumbers(last_seq=19, sent_seq=19)})])
    for at_s in range(400, 700, 5):
        store.tend(NOW + at_s * 1_000_000)
    assert list(store.losses(PRESS, "e1")) == []


def test_a_strangers_junk_on_another_machines_topic_settles_nothing(store: SqliteStore) -> None:
    store.commit([telemetry(1), telemetry(3), beat(SAID), telemetry(1, machine=OVEN)])
    sent_again(store, replace(JUNK, topic=OVEN.telemetry), replace(JUNK, topic="x"), until_s=300)
    assert list(store.losses(PRESS, "e1")) == list(store.losses(OVEN, "e1")) == []


# --- retention ---

DAY = 86_400_000_000


def tended(store: SqliteStore, now_us: int) -> None:
    while store.tend(now_us):
        pass


def test_readings_and_events_go_after_their_days_and_the_ledger_stays(
    path: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_retention, "STEP_ROWS", 3)
    for day in range(6):
        group = [telemetry(day * 10 + at, received_us=NOW + day * DAY) for at in range(1, 11)]
        store.commit(group)
        tended(store, NOW + day * DAY)  # marks what has come until now
    assert store.totals().readings == 60, "for ever is the default"
    before = store.ledgers(PRESS)
    latest = store.latest()
    store.retain(Retention(days=2.5))
    steps = 0
    while store.tend(NOW + 5 * DAY):
        steps += 1
    assert steps >= 30 // 3, "little by little"
    assert (store.totals().events, store.totals().readings) == (30, 30)
    assert rows(path, "SELECT min(seq) FROM telemetry_events") == [(31,)]
    assert (store.ledgers(PRESS), store.latest()) == (before, latest)
    old = [telemetry(1, received_us=NOW + 5 * DAY), telemetry(30, content="other", received_us=NOW + 5 * DAY)]
    assert list(store.commit(old)) == [DUPLICATE, DUPLICATE], "older than the kept events: the ledger knows them"
    assert store.totals().readings == 30


def test_a_sender_whose_clock_is_decades_behind_keeps_its_readings_as_long_as_others(store: SqliteStore) -> None:
    store.retain(Retention(days=30))
    for day in range(3):
        store.commit([telemetry(day + 1, times_us=[1_000_000 + day], received_us=NOW + day * DAY)])
        tended(store, NOW + day * DAY)
    assert store.totals().readings == 3
    tended(store, NOW + 31 * DAY)
    assert store.totals().readings == 2


@pytest.mark.parametrize("step_rows", [7, 5000])
def test_an_emptied_table_that_fills_again_loses_nothing_new(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, step_rows: int
) -> None:
    """SQLite then counts rows from 1 again: an old mark must not reach over them."""
    monkeypatch.setattr(sqlite_retention, "STEP_ROWS", step_rows)
    store.retain(Retention(days=1))
    store.commit([telemetry(seq) for seq in range(1, 8)])
    tended(store, NOW)
    store.tend(NOW + 2 * DAY)  # the new readings come right after the step that empties the table
    assert store.totals().readings == 0
    store.commit([telemetry(seq, received_us=NOW + 2 * DAY) for seq in range(8, 12)])
    tended(store, NOW + 2 * DAY + 1)
    tended(store, NOW + 2 * DAY + 2)
    assert store.totals().readings == 4
    assert store.ledgers(PRESS)[0].stored == ((1, 11),)


def test_a_long_list_of_dead_letters_is_read_without_their_payloads(path: Path, store: SqliteStore) -> None:
    store.commit([Undecodable(f"topic-{number}", bytes(200_000), "why", NOW) for number in range(40)])
    tracemalloc.start()
    try:
        assert [letter.size for letter in store.dead_letters(100)] == [200_000] * 40
        store.tend(NOW)  # it weighs them, too
        assert tracemalloc.get_traced_memory()[1] < 200_000
        store.dead_letter(1)
        assert tracemalloc.get_traced_memory()[1] > 200_000
    finally:
        tracemalloc.stop()


# --- what only SQL shows ---


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def test_what_came_of_a_backlog_is_marked(path: Path, store: SqliteStore) -> None:
    store.commit([telemetry(1), replace(telemetry(2), historical=True)])
    assert rows(path, "SELECT seq, historical FROM telemetry_events ORDER BY seq") == [(1, 0), (2, 1)]


def test_numbers_older_than_the_kept_events_are_recognised_by_the_ledger(path: Path, store: SqliteStore) -> None:
    dropped = MachineNumbers(last_seq=5, dropped=[(4, 5, "disk full")])
    store.commit([telemetry(1), telemetry(2), telemetry(3), beat({"press-1": dropped})])
    with closing(sqlite3.connect(path)) as janitor:
        janitor.execute("DELETE FROM telemetry_events WHERE seq < 3")
        janitor.commit()
    again = [telemetry(1), telemetry(2, content="other"), telemetry(3, content="other"), telemetry(4), telemetry(6)]
    assert list(store.commit(again)) == [DUPLICATE, DUPLICATE, Committed.CONFLICT, NEW, NEW]
    assert store.totals().readings == 5
    assert (store.ledgers(PRESS)[0].stored, store.ledgers(PRESS)[0].dropped) == (((1, 4), (6, 6)), ((5, 5),))


def test_the_ledger_costs_ranges_and_keeps_the_reasons(path: Path, store: SqliteStore) -> None:
    store.commit([telemetry(seq) for seq in range(1, 200)])
    for last in (300, 310, 320):  # a gateway declares a growing range, again and again
        numbers = MachineNumbers(last_seq=400, dropped=[(150, last, "disk full"), (305, 400, "too old")])
        store.commit([beat({"press-1": numbers})])
    store.commit([telemetry(seq) for seq in (250, 251)])
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT first, last, dropped FROM sequence_ledger ORDER BY first").fetchall()
    assert rows == [
        (1, 199, None),
        (200, 249, "disk full"),
        (250, 251, None),
        (252, 304, "disk full"),
        (305, 400, "too old"),
    ]
    assert store.ledgers(PRESS)[0].dropped == ((200, 249), (252, 400))


def test_the_view_for_people(path: Path, store: SqliteStore) -> None:
    times = [NOW + 250_000, -1]
    quality = [Quality.GOOD, Quality.BAD_TIMEOUT]
    column = one_column(ValueType.FLOAT64, 21.5, None, quality=quality, unit="°C")
    uncertain = one_column(ValueType.BOOL, True, tag="on", rows=[0], quality=[Quality.UNCERTAIN])
    store.commit([telemetry(1, column, uncertain, times_us=times)])
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(
            "SELECT tenant, province, plant, machine, device, tag, value_type, unit, time, time_s, time_us, value,"
            " quality FROM readings_named ORDER BY time_us, tag"
        ).fetchall()
        plan = str(connection.execute("EXPLAIN QUERY PLAN SELECT * FROM readings_named WHERE time_us > 5").fetchall())
    place = ("acme", "hessen", "kassel", "press-1", "plc-1")
    now = ("2023-11-14T22:13:20.250000Z", 1_700_000_000.25, NOW + 250_000)
    assert rows == [
        (*place, "speed", "float64", "°C", "1969-12-31T23:59:59.999999Z", -1e-06, -1, None, "bad"),
        (*place, "on", "bool", "", *now, 1, "uncertain"),
        (*place, "speed", "float64", "°C", *now, 21.5, "good"),
    ]
    assert "USING INDEX readings_by_time" in plan


def test_more_series_than_are_remembered(path: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_catalog, "_SERIES_MAX", 1)
    for seq in (1, 3, 5):
        tags = [one_column(ValueType.INT, seq, tag=tag) for tag in ("a", "b", "c")]
        group = [telemetry(at, *tags, machine=machine) for at in (seq, seq + 1) for machine in (PRESS, OVEN)]
        sent = MachineNumbers(last_seq=9, sent_seq=seq + 2)
        with opened(path) as fresh:
            outcomes = fresh.commit([*group, beat({"press-1": sent, "oven-1": sent})])
        assert list(outcomes) == [*[NEW] * 4, Committed.BEAT]
        for machine in (PRESS, OVEN):
            assert (store.ledgers(machine)[0].stored, store.ledgers(machine)[0].known) == (((1, seq + 1),), seq + 2)
            assert [value.value for value in store.latest(machine)] == [seq, seq, seq]
    assert [row.tags for row in store.machines()] == [3, 3]


def test_plants_with_the_same_machine_names_stay_apart(store: SqliteStore) -> None:
    other = replace(PLANT, plant="giessen")
    store.add_plant(other)
    there = replace(PRESS, plant=other)
    assert list(store.commit([telemetry(1), telemetry(1, machine=there)])) == [NEW, NEW]
    assert [row.plant.plant for row in store.machines()] == ["giessen", "kassel"]
    for gateway in (GATEWAY, replace(GATEWAY, plant=other)):
        assert list(store.confirm(gateway).machines) == ["press-1"]


def test_a_correction_that_was_interrupted_goes_on_where_it_stopped(path: Path) -> None:
    """A part of it, then the program is gone: what was corrected is not corrected again."""
    mark, rows = ClockMark(bytes(16), 0), sqlite_clock.STEP_ROWS
    with opened(path) as store:
        with_plant(store)
        for seq in (1, 2, 3):
            message = telemetry(seq, one_column(ValueType.INT, *range(rows)), times_us=range(rows))
            store.commit([replace(message, clock=mark)])
        store.commit([beat(clock=Clock(synchronised=True, zeros={mark.span.hex(): NOW}))])
        assert store.tend(NOW)
        assert [one.corrected for one in store.spans(GATEWAY)] == [1]
    with opened(path) as store:
        while store.tend(NOW):
            pass
        assert [one.corrected for one in store.spans(GATEWAY)] == [3]
    assert Counter(at for _, _, _, at, _, _ in readings(path).elements()) == dict.fromkeys(range(NOW, NOW + rows), 3)
