"""Sequence and ledger against a plain model, under random operations: every number is in one state, and nothing that a
gateway is told to be there is not there. The outbox has the same (test_outbox_model.py)."""

from __future__ import annotations

import copy
import shutil
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cloud import speakers
from cloud.completeness import statement
from cloud.speakers import Speakers
from cloud.store.contract import Committed, Ledger, Loss, Number, Store, StoreError, Telemetry, Told, Undecodable
from cloud.store.memory import MemoryStore
from cloud.store.sqlite import SqliteStore
from protocols.uplink import ranges
from protocols.uplink.confirm import MachineConfirm
from protocols.uplink.presence import Heard, hear, is_history
from protocols.uplink.status import MachineNumbers, Status
from protocols.uplink.topics import MachineTopic
from protocols.values import ValueType
from tests.contract.store_cases import GATEWAY, NOW, OVEN, PRESS, SECOND, beat, one_column, telemetry, with_plant

DEAD_LETTER = "dead letter"

Key = tuple[MachineTopic, str]
machines = st.sampled_from([PRESS, OVEN])
epochs = st.sampled_from(["e1", "e2"])
seqs = st.integers(1, 14)
drops = st.tuples(seqs, st.integers(0, 4), st.sampled_from(["disk full", "too old"])).map(
    lambda one: (one[0], one[0] + one[1], one[2])
)
numbers = st.tuples(st.integers(0, 16), st.integers(0, 14), st.lists(drops, max_size=2)).map(
    lambda one: MachineNumbers(last_seq=one[0], sent_seq=one[1], dropped=one[2])
)


@dataclass
class ModelEpoch:
    """`digests`: of the events that are kept. `dropped`: with the first reason that was given."""

    stored: set[int] = field(default_factory=set)
    digests: dict[int, bytes] = field(default_factory=dict)
    dropped: dict[int, str] = field(default_factory=dict)
    known: int = 0
    given: int = 0
    sent: int = 0
    vouched: int = 0
    named_us: int = 0
    stored_us: int = 0

    def lose(self, first: int, last: int, reason: str) -> None:
        for seq in range(first, last + 1):
            self.dropped.setdefault(seq, reason)
        self.known = max(self.known, last)

    def state(self, seq: int, status_us: int) -> str:
        """One of the four."""
        if seq in self.stored:
            return "stored"
        if seq in self.dropped:
            return "dropped"
        is_held = seq > self.sent and not self.vouched < seq <= self.given
        return "in flight" if self.is_named(status_us) and is_held else "missing"

    def is_named(self, status_us: int) -> bool:
        """Whether the gateway's last live status still named this epoch."""
        return self.named_us > 0 and self.named_us == status_us


@dataclass
class Model:
    """`heard`, `speakers`: by their own rules, which have tests of their own. `told`: what the gateway's last status
    said of each lane that it named."""

    epochs: dict[Key, ModelEpoch] = field(default_factory=dict)
    status_us: int = 0
    heard: Heard = field(default_factory=Heard)
    speakers: Speakers = field(default_factory=Speakers)
    told: dict[Key, int] = field(default_factory=dict)

    def epoch(self, machine: MachineTopic, name: str) -> ModelEpoch:
        return self.epochs.setdefault((machine, name), ModelEpoch())


class LedgerMachine(RuleBasedStateMachine):
    """`store` and `model` side by side, one gateway with two machines and two epochs of each."""

    store: Store

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.now_us = NOW
        self.backup: tuple[Model, Any] | None = None
        self.open()
        with_plant(self.store)

    def open(self) -> None:
        raise NotImplementedError

    def saved(self) -> Any:
        """A copy of everything that the store holds."""
        raise NotImplementedError

    def restored(self, saved: Any) -> None:
        raise NotImplementedError

    # --- what arrives ---

    @rule(batches=st.lists(st.tuples(machines, epochs, seqs, st.sampled_from(["", "", "other"])), max_size=8))
    def deliver(self, batches: list[tuple[MachineTopic, str, int, str]]) -> None:
        """A group in one transaction: new ones, some again, some under a number that is taken."""
        items = [self._telemetry(*one) for one in batches]
        expected = [self._take(item) for item in items]
        assert list(self.store.commit(items)) == expected

    def _telemetry(self, machine: MachineTopic, epoch: str, seq: int, content: str) -> Telemetry:
        return telemetry(seq, machine=machine, epoch=epoch, content=content, received_us=self._now())

    def _take(self, item: Telemetry) -> Committed:
        epoch, seq = self.model.epoch(item.topic, item.batch.epoch), item.batch.seq
        if seq in epoch.stored:
            same = epoch.digests.get(seq, item.digest) == item.digest  # without the event nobody can tell
            return Committed.DUPLICATE if same else Committed.CONFLICT
        epoch.stored.add(seq)
        epoch.digests[seq] = item.digest
        epoch.known = max(epoch.known, seq)
        epoch.stored_us = max(epoch.stored_us, item.received_us)
        return Committed.NEW

    @rule(machine=machines, epoch=epochs, seq=seqs)
    def deliver_what_fits_no_database(self, machine: MachineTopic, epoch: str, seq: int) -> None:
        column = one_column(ValueType.STRING, "half a \ud800 pair")
        item = telemetry(seq, column, machine=machine, epoch=epoch, received_us=self._now())
        assert list(self.store.commit([item])) == [Committed.DEAD]
        self.model.epoch(machine, epoch).lose(seq, seq, DEAD_LETTER)

    @rule(machine=machines, epoch=epochs, seq=seqs)
    def deliver_what_cannot_be_read(self, machine: MachineTopic, epoch: str, seq: int) -> None:
        """Its number counts only where its gateway has spoken of it."""
        number = Number(machine, GATEWAY.thing, epoch, seq)
        item = Undecodable(machine.telemetry, f"{epoch} {seq}".encode(), "damaged", self._now(), number)
        assert list(self.store.commit([item])) == [Committed.DEAD]
        found = self.model.epochs.get((machine, epoch))
        if found is not None and seq <= max(found.given, found.known):
            found.lose(seq, seq, DEAD_LETTER)

    @rule(
        epoch=epochs,
        says=st.dictionaries(machines, numbers),
        session=st.integers(1, 5),
        instance=st.sampled_from(["a", "a", "b"]),
        pause_s=st.sampled_from([1, 90]),
    )
    def status(
        self, epoch: str, says: dict[MachineTopic, MachineNumbers], session: int, instance: str, pause_s: int
    ) -> None:
        """One of an older session comes late: it lets known numbers grow, and makes nothing new."""
        self.now_us += pause_s * SECOND
        said = {machine.machine: one for machine, one in says.items()}
        item = beat(said, epoch=epoch, session=session, instance=instance, received_us=self._now())
        assert list(self.store.commit([item])) == [Committed.BEAT]
        model, before = self.model, self.model.heard.status
        is_late = is_history(model.heard, item.status, retained=False)
        model.heard = hear(model.heard, item.status, retained=False, received_us=item.received_us)
        model.speakers, _ = speakers.heard(model.speakers, instance, "", item.received_us)
        if not is_late:
            model.status_us = item.received_us
        for machine, one in says.items():
            if is_late and (machine, epoch) not in model.epochs:
                continue
            found = model.epoch(machine, epoch)
            self._said(found, one)
            if not is_late:
                found.named_us = item.received_us
                self._vouched(found, (machine, epoch), max(one.last_seq, one.sent_seq), before, item.status)
        if not is_late:
            model.told = {(machine, epoch): max(one.last_seq, one.sent_seq) for machine, one in says.items()}

    def _said(self, found: ModelEpoch, one: MachineNumbers) -> None:
        for first, last, reason in one.dropped:
            found.lose(first, last, reason)
        found.known = max(found.known, one.sent_seq)
        found.given = max(found.given, one.last_seq, one.sent_seq)
        found.sent = max(found.sent, one.sent_seq)

    def _vouched(self, found: ModelEpoch, key: Key, last: int, before: Status | None, now: Status) -> None:
        """Whether the outbox has lost its end."""
        is_lower = last < self.model.told.get(key, 0) and not self.model.speakers.fenced
        if before is None or not is_lower or (before.session, before.instance) == (now.session, now.instance):
            found.vouched = max(found.vouched, last)
            return
        found.vouched = last
        if before.instance == now.instance and before.session < now.session:
            found.known = max(found.known, found.given)

    @rule(machine=machines, epoch=epochs, numbers=st.tuples(seqs, seqs).map(sorted))
    def write_off(self, machine: MachineTopic, epoch: str, numbers: list[int]) -> None:
        """Only where no gateway answers for what is missing any more."""
        first, last = numbers
        found, status_us = self.model.epochs.get((machine, epoch), ModelEpoch()), self.model.status_us
        known = range(1, max(found.known, found.given) + 1)
        missing = [seq for seq in known if found.state(seq, status_us) == "missing"]
        if missing and (found.is_named(status_us) or 0 < status_us <= found.stored_us):
            with pytest.raises(StoreError, match="its gateway's last status"):
                self.store.write_off(machine, epoch, [(first, last)], "gone")
            return
        gone = [seq for seq in missing if first <= seq <= last]
        assert self.store.write_off(machine, epoch, [(first, last)], "gone") == len(gone)
        for seq in gone:
            found.lose(seq, seq, "gone")

    # --- what becomes of the database ---

    @rule()
    def back_up(self) -> None:
        self.backup = (copy.deepcopy(self.model), self.saved())

    @precondition(lambda self: self.backup is not None)
    @rule()
    def put_the_backup_back(self) -> None:
        assert self.backup is not None
        model, saved = self.backup
        self.model = copy.deepcopy(model)
        self.restored(saved)

    # --- what must hold ---

    @invariant()
    def every_number_is_in_its_state(self) -> None:
        for machine in (PRESS, OVEN):
            found = {one.epoch: one for one in self.store.ledgers(machine)}
            assert found.keys() == {epoch for of, epoch in self.model.epochs if of == machine}
            for name, one in found.items():
                self._agree(one, self.store.losses(machine, name), self.model.epochs[machine, name])

    def _agree(self, found: Ledger, losses: Any, model: ModelEpoch) -> None:
        dropped = model.dropped.keys() - model.stored
        assert (found.stored, found.dropped) == (ranges.of(model.stored), ranges.of(dropped))
        assert (found.known, found.given, found.sent) == (model.known, model.given, model.sent)
        assert found.vouched == model.vouched
        assert found.named == model.is_named(self.model.status_us)
        assert _reasons(losses) == {seq: model.dropped[seq] for seq in dropped}
        said = statement(found)
        states = [model.state(seq, self.model.status_us) for seq in range(1, max(model.known, model.given) + 1)]
        assert (said.batches, said.stored, said.dropped) == (len(states), len(model.stored), len(dropped))
        assert (said.in_flight, said.missing) == (states.count("in flight"), states.count("missing"))
        assert said.missing_ranges == ranges.of(at + 1 for at, state in enumerate(states) if state == "missing")

    @invariant()
    def nothing_is_confirmed_that_is_not_there(self) -> None:
        told = self.store.confirm(GATEWAY)
        for name, lane in _lanes(told):
            model = self.model.epochs[MachineTopic(GATEWAY.plant, name), lane.epoch]
            there = model.stored | model.dropped.keys()
            assert set(range(1, lane.through + 1)) <= there
            assert lane.through + 1 not in there
            assert lane.missing == list(ranges.missing(ranges.of(there), max([model.known, *there])))
            gone = {seq for first, last in lane.missing for seq in range(first, last + 1)}
            assert set(range(1, lane.highest + 1)) - gone <= there

    @invariant()
    def each_reading_is_there_once(self) -> None:
        stored = sum(len(one.stored) for one in self.model.epochs.values())
        assert self.store.totals().readings == stored
        assert sum(one.readings for machine in (PRESS, OVEN) for one in self.store.ledgers(machine)) == stored

    def _now(self) -> int:
        self.now_us += SECOND
        return self.now_us


def _reasons(losses: list[Loss]) -> dict[int, str]:
    """By number; dead letters have numbers of their own, which do not matter here."""
    return {
        seq: DEAD_LETTER if loss.reason.startswith(DEAD_LETTER) else loss.reason
        for loss in losses
        for seq in range(loss.first, loss.last + 1)
    }


def _lanes(told: Told) -> list[tuple[str, MachineConfirm]]:
    return [*told.machines.items(), *((name, lane) for name, lanes in told.others.items() for lane in lanes)]


class MemoryLedger(LedgerMachine):
    def open(self) -> None:
        self.store = MemoryStore()

    def saved(self) -> Any:
        return copy.deepcopy(self.store)

    def restored(self, saved: Any) -> None:
        self.store = copy.deepcopy(saved)


class SqliteLedger(LedgerMachine):
    """The receiver is started anew now and then, and its old events are thrown away."""

    def open(self) -> None:
        if not hasattr(self, "directory"):
            self.directory = Path(tempfile.mkdtemp(prefix="holdfast-ledger-"))
        self.store = SqliteStore(self.directory / "cloud.db")

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.open()

    @rule(below=seqs)
    def throw_old_events_away(self, below: int) -> None:
        with closing(sqlite3.connect(self.directory / "cloud.db")) as janitor, janitor:
            janitor.execute("DELETE FROM telemetry_events WHERE seq < ?", (below,))
        for epoch in self.model.epochs.values():
            epoch.digests = {seq: digest for seq, digest in epoch.digests.items() if seq >= below}

    def saved(self) -> bytes:
        self.store.close()  # so that everything is in the one file
        content = (self.directory / "cloud.db").read_bytes()
        self.open()
        return content

    def restored(self, saved: Any) -> None:
        self.store.close()
        (self.directory / "cloud.db").write_bytes(saved)
        self.open()

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.directory)


MemoryLedger.TestCase.settings = settings(max_examples=40, stateful_step_count=25)
SqliteLedger.TestCase.settings = settings(max_examples=20, stateful_step_count=20)
TestMemoryLedger = MemoryLedger.TestCase
TestSqliteLedger = SqliteLedger.TestCase
