"""The fault suite's small part: the same rows as `make faults`, with few injections. See docs/reliability.md."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from cloud import write_off
from tests.faults import oracle, report
from tests.faults.conftest import OUTCOMES
from tests.faults.memory import MIB, grows, told
from tests.faults.oracle import Evidence, Store, Verdict
from tests.faults.rows import ROWS
from tests.faults.runner import Job, run
from tests.faults.services import Life
from tests.faults.stage import Outcome

QUICK = [row for row in ROWS if row.quick]
AT_ONCE = 4


@pytest.fixture(scope="module")
def outcomes(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    seed = random.SystemRandom().randrange(1_000_000)
    jobs = [Job(row.name, row.quick, seed) for row in QUICK]
    done = asyncio.run(run(jobs, AT_ONCE, lambda _: None, tmp_path_factory.mktemp("faults")))
    pytestconfig.stash[OUTCOMES] = done
    return {outcome.row: outcome for outcome in done}


@pytest.mark.faults
@pytest.mark.timeout(400)
@pytest.mark.parametrize("row", [row.name for row in QUICK])
def test_every_reading_is_stored_once_or_declared(row: str, outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes[row]
    if outcome.skipped:
        pytest.skip(outcome.skipped)
    assert outcome.injections > 0
    assert outcome.verdict.readings > 0
    assert not outcome.failed, report.details(outcome)


# --- the oracle itself: it must see what is wrong ---


TABLES = """
CREATE TABLE series (id INTEGER PRIMARY KEY, machine_id INTEGER, tag TEXT);
CREATE TABLE readings (series_id INTEGER, time INTEGER, value, quality INTEGER);
CREATE TABLE epochs (id INTEGER PRIMARY KEY, machine_id INTEGER, known INTEGER, given INTEGER);
CREATE TABLE telemetry_events (epoch_id INTEGER, seq INTEGER, readings INTEGER);
CREATE TABLE sequence_ledger (epoch_id INTEGER, first INTEGER, last INTEGER, dropped TEXT);
INSERT INTO series VALUES (1, 1, 'tag');
INSERT INTO epochs VALUES (1, 1, 0, 0);
"""


Dropped = tuple[tuple[int, int] | tuple[int, int, str], ...]


def database(path: Path, numbers: list[int], dropped: Dropped) -> Store:
    """One machine with one tag; each number came in a batch of its own that has the same number."""
    path.unlink(missing_ok=True)
    connection = sqlite3.connect(path)
    connection.executescript(TABLES)
    connection.executemany("INSERT INTO readings VALUES (1, 0, ?, 0)", [(n,) for n in numbers])
    connection.executemany("INSERT INTO telemetry_events VALUES (1, ?, 1)", [(n,) for n in numbers])
    spans = [(first, last, *(reason or ["disk full"])) for first, last, *reason in dropped]
    connection.executemany("INSERT INTO sequence_ledger VALUES (1, ?, ?, ?)", spans)
    connection.commit()
    connection.close()
    return Store(path)


def judged(
    tmp_path: Path,
    numbers: list[int],
    *,
    given: int = 10,
    lives: tuple[Life, ...] = (Life(0, 20_100_000, "stopped"),),
    on_disk: frozenset[int] = frozenset(),
    destroyed: frozenset[int] = frozenset(),
    dropped: Dropped = (),
) -> Verdict:
    """The device gave 1, 2, 3 … two seconds apart."""
    log = tmp_path / "device.log"
    log.write_text("".join(f"{number} {number * 2_000_000}\n" for number in range(1, given + 1)))
    store = database(tmp_path / "cloud.db", numbers, dropped)
    return oracle.judge(store, [Evidence("tag", log, lives, set(on_disk), set(destroyed))])


ALL = list(range(1, 11))


def test_the_oracle_is_content_when_each_is_there_once(tmp_path: Path) -> None:
    verdict = judged(tmp_path, ALL)
    assert (verdict.readings, verdict.lost, verdict.doubled, verdict.in_hand, verdict.faults) == (10, 0, 0, 0, [])


def test_the_oracle_sees_loss_doubling_and_invention(tmp_path: Path) -> None:
    assert judged(tmp_path, [n for n in ALL if n != 4]).lost == 1
    assert judged(tmp_path, [*ALL, 4]).doubled == 1
    assert judged(tmp_path, [*ALL, 11]).faults == ["device: stored, and never given by the device 11 (1)"]


def test_only_the_last_answers_before_a_death_can_have_been_in_hand(tmp_path: Path) -> None:
    killed = (Life(0, 11_500_000, "killed"), Life(11_600_000, 20_100_000, "stopped"))
    verdict = judged(tmp_path, [n for n in ALL if n != 5], lives=killed)
    assert (verdict.lost, verdict.in_hand) == (0, 1)
    assert judged(tmp_path, [n for n in ALL if n != 4], lives=killed).lost == 1  # 5 came after it, and is there
    assert judged(tmp_path, [n for n in ALL if n not in (4, 5)], lives=killed).lost == 1  # 4 was old by then
    assert judged(tmp_path, [n for n in ALL if n != 5], lives=killed, on_disk=frozenset({5})).lost == 1
    assert judged(tmp_path, [n for n in ALL if n != 6], lives=killed).lost == 1  # the first of the next life


def test_one_answer_may_be_on_the_line_at_a_planned_stop(tmp_path: Path) -> None:
    verdict = judged(tmp_path, ALL[:-1])
    assert (verdict.lost, verdict.in_hand) == (0, 1)
    assert judged(tmp_path, ALL[:-2]).lost == 1


def test_what_the_ledger_has_as_dropped_is_declared_and_nothing_beside_it(tmp_path: Path) -> None:
    found = [n for n in ALL if n not in (3, 4, 7)]
    verdict = judged(tmp_path, found, dropped=((3, 4),))
    assert (verdict.declared, verdict.lost) == (2, 1)
    assert judged(tmp_path, found, dropped=((3, 3), (7, 7))).declared == 1  # of 3 and 4 only one was told
    assert judged(tmp_path, ALL[4:], dropped=((1, 4),)).declared == 4
    assert judged(tmp_path, ALL[:6], dropped=((7, 10),)).declared == 4


def test_a_program_that_grows_is_seen_and_one_that_warms_up_is_not() -> None:
    warm = [at * MIB for at in range(30, 60)] + [60 * MIB] * 90
    assert not grows(warm)
    assert not grows([60 * MIB + at % 7 * 100_000 for at in range(120)])
    assert grows([60 * MIB + at * 60_000 for at in range(120)])
    assert told("receiver", warm) == "receiver: 60.0 MiB, in the end 60.0 MiB, at most 60.0 MiB"


def test_what_a_row_destroyed_is_counted_apart(tmp_path: Path) -> None:
    verdict = judged(tmp_path, [n for n in ALL if n not in (3, 4)], destroyed=frozenset({3, 5}))
    assert (verdict.destroyed, verdict.lost) == (1, 1)


def test_what_an_operator_wrote_off_is_no_excuse(tmp_path: Path) -> None:
    found = [n for n in ALL if n not in (3, 4, 7)]
    word = write_off.reason("the directory was deleted")
    verdict = judged(tmp_path, found, dropped=((3, 4, word), (7, 7)))
    assert (verdict.declared, verdict.lost) == (1, 2)
    verdict = judged(tmp_path, found, dropped=((3, 3), (4, 4, word), (7, 7, word)))
    assert (verdict.declared, verdict.lost) == (0, 3)  # which of two batches held a reading cannot be told
    verdict = judged(tmp_path, found, dropped=((3, 4, word), (7, 7, word)), destroyed=frozenset({3, 4}))
    assert (verdict.destroyed, verdict.lost) == (2, 1)


def test_the_ledger_waits_for_all_that_was_given_and_is_neither_stored_nor_dropped(tmp_path: Path) -> None:
    store = database(tmp_path / "cloud.db", [1, 2, 5], ((3, 3),))
    with closing(sqlite3.connect(store.path)) as connection:
        connection.execute("INSERT INTO sequence_ledger VALUES (1, 1, 2, NULL), (1, 5, 5, NULL)")
        connection.commit()
        assert oracle.missing_batches(store) == 1
        connection.execute("UPDATE epochs SET given = 9")
        connection.commit()
        assert oracle.missing_batches(store) == 5
