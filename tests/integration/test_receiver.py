"""The receiver with a real broker and a real database: stored once, acknowledged after the commit, confirmed.

A wait here has a limit only so that a failure says where it waited; no time is asserted.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import math
import sqlite3
import sys
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

import msgpack
import pytest
import zstandard

from cloud import confirmer, overview, receiver
from cloud.commands.payload import explained
from cloud.confirmer import LANES_MAX
from cloud.receiver import Receiver
from cloud.store.contract import Committed, Item, Totals
from cloud.store.sqlite import SqliteStore
from cloud.worker import StoreWorker
from protocols.uplink import confirm, definition, envelope, frames
from protocols.uplink.batch import Batch, Block, Column
from protocols.uplink.confirm import Confirm, MachineConfirm
from protocols.uplink.link import Message, Outcome
from protocols.uplink.mark import mark
from protocols.uplink.mqtt import BrokerSettings, MqttAgentLink, MqttCloudLink
from protocols.uplink.mqtt_connection import RECEIVE_MAX
from protocols.uplink.presence import Presence, presence
from protocols.uplink.status import GatewayInfo, MachineNumbers, Status, will
from protocols.uplink.topics import DefinitionTopic, GatewayTopic, MachineTopic, Plant
from protocols.values import ValueType
from tests.support.brokers import Broker, Wire, mosquitto, wire

ROOT = Path(__file__).parents[2]
PATIENCE_S = 20.0
NOW_MS = 1_790_000_000_000
EPOCH = "a1b2c3d4"
PLANT = Plant("acme", "north", "p1")
PRESS = MachineTopic(PLANT, "press")
GATEWAY = GatewayTopic(PLANT, "gw-1")


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait for it; TimeoutError where it never comes."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = condition()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.01)


def settings(target: Broker | Wire) -> BrokerSettings:
    return BrokerSettings.model_validate({"host": "127.0.0.1", "port": target.port, "keep_alive_s": 5})


@dataclass
class Running:
    """A receiver at work. `task`: its run."""

    receiver: Receiver
    store: StoreWorker
    task: asyncio.Task[None]

    async def took(self, **outcomes: int) -> None:
        """Wait until this is what became of the messages since it runs."""
        await until(lambda: self.receiver.state.outcomes.total() >= sum(outcomes.values()))
        assert dict(self.receiver.state.outcomes) == outcomes

    async def totals(self) -> Totals:
        return await self.store.call(lambda store: store.totals())


@asynccontextmanager
async def receiving(
    target: Broker | Wire, path: Path, open_store: Callable[[Path], SqliteStore] = SqliteStore
) -> AsyncIterator[Running]:
    """A receiver, connected and subscribed."""
    async with StoreWorker(lambda: open_store(path)) as store:
        found = Receiver(MqttCloudLink(settings(target), "receiver"), store)
        task = asyncio.create_task(found.run(), name="receiver")
        try:
            await until(lambda: task.done() or found.state.listening_since_us is not None)
            yield Running(found, store, task)
        finally:
            task.cancel()
            (ended,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(ended, asyncio.CancelledError), ended


@asynccontextmanager
async def gateway(target: Broker | Wire, session: int = 1) -> AsyncIterator[MqttAgentLink]:
    """gw-1, connected, with its will left at the broker."""
    link = MqttAgentLink(settings(target), GATEWAY.thing)
    await link.connect(Message(GATEWAY.status, will(session, NOW_MS, EPOCH).encode(), retain=True), GATEWAY.confirm)
    try:
        yield link
    finally:
        await link.close()


def binary(seq: int, value: float = 1.5, sender: str = "gw-1") -> bytes:
    column = Column("speed", ValueType.FLOAT64, [value, value + 1], "rpm")
    return envelope.encode(Batch(sender, EPOCH, seq, [Block("plc-1", [NOW_MS * 1000, NOW_MS * 1000 + 500], [column])]))


def plain(seq: int, sender: str = "gw-1") -> bytes:
    return envelope.encode_json(NOW_MS, seq, {"running": True, "recipe": "Nougat"}, gateway=sender, epoch=EPOCH)


def online(session: int = 1, **more: object) -> bytes:
    said = {"timestamp": NOW_MS, "state": "online", "session": session, "epoch": EPOCH, **more}
    return Status(**{"gateway": GatewayInfo(thing_name=GATEWAY.thing, version="1", uptime_sec=5), **said}).encode()


async def send(link: MqttAgentLink, topic: str, *payloads: bytes, retain: bool = False) -> None:
    """Publish; each is accepted by the broker."""
    for payload in payloads:
        assert await link.publish(Message(topic, payload, retain)) is Outcome.ACCEPTED


async def confirmed(link: MqttAgentLink) -> MachineConfirm:
    """The next confirm's account of the press."""
    async with asyncio.timeout(PATIENCE_S):
        message = await link.inbound()
    assert message.topic == GATEWAY.confirm
    return confirm.decode(message.payload).machines[PRESS.machine]


@pytest.fixture(autouse=True)
def _brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorter pauses than in life."""
    monkeypatch.setattr(confirmer, "CONFIRM_S", 0.05)
    monkeypatch.setattr(confirmer, "CALM_S", 0.2)
    monkeypatch.setattr(receiver, "RETRY_S_FIRST", 0.1)
    monkeypatch.setattr(receiver, "ROUND_S_MAX", 0.5)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database with the plant in it."""
    path = tmp_path / "cloud.db"
    with closing(SqliteStore(path)) as store:
        store.add_tenant(PLANT.tenant)
        store.add_plant(PLANT)
    return path


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    async with mosquitto(tmp_path / "broker") as broker:
        yield broker


# --- stored once ---


async def test_both_forms_are_stored_and_acknowledged(broker: Broker, path: Path) -> None:
    async with receiving(broker, path) as running, gateway(broker) as link:
        await send(link, PRESS.telemetry, plain(1), binary(2), binary(2))
        await running.took(new=2, duplicate=1)
        assert await running.totals() == Totals(events=2, readings=4, repeated=0, dead_letters=0)
        latest = await running.store.call(lambda store: store.latest(PRESS))
        assert {(one.tag, one.value, one.unit) for one in latest} == {
            ("running", True, ""),
            ("recipe", "Nougat", ""),
            ("speed", 2.5, "rpm"),
        }
        assert running.receiver.state.readings == 4
    async with receiving(broker, path) as running, gateway(broker) as link:  # the same session: nothing comes again
        await send(link, PRESS.telemetry, binary(3))
        await running.took(new=1)


async def test_what_was_committed_and_not_acknowledged_comes_again_and_is_stored_once(
    broker: Broker, path: Path
) -> None:
    """The receiver dies after the commit, before it has acknowledged anything."""
    loop = asyncio.get_running_loop()
    victims: list[asyncio.Task[None]] = []
    fatal: list[Sequence[Committed]] = []

    class Deadly(SqliteStore):
        def commit(self, items: Sequence[Item]) -> Sequence[Committed]:
            outcomes = super().commit(items)
            if Committed.NEW in outcomes:
                fatal.append(outcomes)
                loop.call_soon_threadsafe(victims[0].cancel)  # before the receiver hears of the outcome
            return outcomes

    async with gateway(broker) as link:
        async with receiving(broker, path, Deadly) as running:
            victims.append(running.task)
            await send(link, PRESS.telemetry, binary(1))
            await until(running.task.done)
            assert fatal == [[Committed.NEW]]
            assert not running.receiver.state.outcomes
        async with receiving(broker, path) as running:
            await running.took(duplicate=1)
            assert await running.totals() == Totals(events=1, readings=2, repeated=0, dead_letters=0)
            assert await confirmed(link) == MachineConfirm(epoch=EPOCH, through=1, highest=1)


# --- definitions ---

SPEED = Block("plc-1", [NOW_MS * 1000 + 250_000], [Column("speed", ValueType.FLOAT64, [1.5], "rpm")])
SAID = definition.define("gw-1", EPOCH, "main", [("speed", ValueType.FLOAT64, "rpm")], SPEED)
DEFINITION = definition.encode(SAID)
REF = definition.ref(DEFINITION)
MAIN = DefinitionTopic(PRESS, "plc-1", "main").definition


def referring(seq: int) -> bytes:
    return envelope.encode_referring(seq, [definition.pack_referring(SPEED, REF, SAID)])


async def test_what_refers_to_a_definition_is_stored_also_by_the_next_receiver(broker: Broker, path: Path) -> None:
    async with receiving(broker, path) as running, gateway(broker) as link:
        await send(link, MAIN, DEFINITION, retain=True)
        await send(link, PRESS.telemetry, referring(1), referring(1))
        await running.took(defined=1, new=1, duplicate=1)
        (latest,) = await running.store.call(lambda store: store.latest(PRESS))
        assert (latest.tag, latest.value, latest.unit) == ("speed", 1.5, "rpm")
    async with receiving(broker, path) as running, gateway(broker) as link:
        await send(link, PRESS.telemetry, referring(2))
        await until(lambda: running.receiver.state.outcomes["new"] == 1)
        assert (await running.totals()).dead_letters == 0


async def test_an_unknown_definition_is_asked_for_and_then_both_are_stored(broker: Broker, path: Path) -> None:
    """The telemetry is acknowledged meanwhile, and neither stored nor a dead letter: the gateway has it still."""
    online_with = online(machines={PRESS.machine: MachineNumbers(last_seq=2, sent_seq=2)})
    async with gateway(broker) as link:
        async with receiving(broker, path) as running:
            await send(link, PRESS.telemetry, referring(1), binary(2))
            await running.took(asked=1, new=1)
            assert await running.totals() == Totals(events=1, readings=2, repeated=0, dead_letters=0)
            await send(link, GATEWAY.status, online_with)
            said = await confirmed(link)
            while not said.definitions:
                said = await confirmed(link)
            assert said == MachineConfirm(epoch=EPOCH, through=0, highest=2, missing=[(1, 1)], definitions=[REF.hex()])
            await send(link, GATEWAY.status, online_with)
            assert (await confirmed(link)).definitions == [], "asked once; again when something refers to it again"
        async with receiving(broker, path) as running:  # it was acknowledged: it does not come again by itself
            await send(link, MAIN, DEFINITION, retain=True)
            await send(link, PRESS.telemetry, referring(1))
            await running.took(defined=1, new=1)
            said = await confirmed(link)
            while said.through < 2:
                said = await confirmed(link)
            assert said == MachineConfirm(epoch=EPOCH, through=2, highest=2)
            assert await running.totals() == Totals(events=2, readings=3, repeated=0, dead_letters=0)


async def test_a_definition_is_its_machines_own(broker: Broker, path: Path) -> None:
    """Nobody can tell another machine's tags."""
    async with receiving(broker, path) as running, gateway(broker) as link:
        await send(link, DefinitionTopic(MachineTopic(PLANT, "oven"), "plc-1", "main").definition, DEFINITION)
        await send(link, PRESS.telemetry, referring(1), binary(2))
        await running.took(defined=1, asked=1, new=1)
        assert [event.tag for event in await running.store.call(lambda store: store.latest())] == ["speed"]
        assert (await running.totals()).events == 1


async def test_a_definition_that_is_not_its_topics_becomes_a_dead_letter(broker: Broker, path: Path) -> None:
    async with receiving(broker, path) as running, gateway(broker) as link:
        for device, group in (("plc-1", "other"), ("plc-2", "main")):
            await send(link, DefinitionTopic(PRESS, device, group).definition, DEFINITION)
        await send(link, MAIN, DEFINITION[:-1], b"")
        await running.took(dead=4)
        letters = await running.store.call(lambda store: store.dead_letters())
        assert {letter.reason for letter in letters} >= {
            "the definition of plc-1/other names plc-1/main",
            "the definition of plc-2/main names plc-1/main",
        }
        assert await running.store.call(lambda store: store.definition(PRESS, REF)) is None
        await send(link, PRESS.telemetry, referring(1), binary(2))
        await running.took(dead=4, asked=1, new=1)


# --- what cannot be taken ---

GARBAGE = {
    "nothing": b"",
    "noise": b"\x00\x01\xfe\xff",
    "text": "Grüße".encode(),
    "half a JSON": b'{"schemaVersion": 1, "times',
    "no seq": b'{"schemaVersion": 1, "timestamp": 1, "values": {"a": 1}}',
    "seq 0": b'{"schemaVersion": 1, "timestamp": 1, "seq": 0, "values": {"a": 1}}',
    "seq beyond 64 bits": b'{"schemaVersion": 1, "timestamp": 1, "seq": 9223372036854775808, "values": {"a": 1}}',
    "no values": b'{"schemaVersion": 1, "timestamp": 1, "seq": 1, "values": {}}',
    "another version": b'{"schemaVersion": 2, "timestamp": 1, "seq": 1, "values": {"a": 1}}',
    "seq of 64 ones": b'{"schemaVersion": 1, "timestamp": 1, "seq": 18446744073709551615, "values": {"a": 1}}',
    "a value beyond 64 bits": b'{"schemaVersion": 1, "timestamp": 1, "seq": 1, "values": {"a": 18446744073709551616}}',
    "NaN": b'{"schemaVersion": 1, "timestamp": 1, "seq": 1, "values": {"a": NaN}}',
    "infinity": b'{"schemaVersion": 1, "timestamp": 1, "seq": 1, "values": {"a": -Infinity}}',
    "infinity by exponent": b'{"schemaVersion": 1, "timestamp": 1, "seq": 1, "values": {"a": 1e999}}',
    "NaN in MessagePack": msgpack.packb({"schemaVersion": 1, "timestamp": 1, "seq": 1, "values": {"a": math.nan}}),
    "bad UTF-8": b'{"schemaVersion": 1, "timestamp": 1, "seq": 1, "values": {"a": "\xc3\x28"}}',
    "bad UTF-8 in MessagePack": b"\x92\x01\xa2\xc3\x28",
    "half a surrogate pair": b'{"schemaVersion": 1, "timestamp": 1, "seq": 1, "values": {"a": "\\ud800"}}',
    "deeper than any message": b'{"a":' * 5000,
    "deeper than any MessagePack": b"\x91" * 5000,
    "a list": json.dumps([1, "gw-1", "", 1]).encode(),
    "MessagePack of nothing like it": msgpack.packb({b"\xff": 1, 2: {}}),
    "half a zstd frame": binary(1)[:-7],
    "a zlib bomb": zlib.compress(b"\x00" * (17 << 20)),
    "a gzip bomb": gzip.compress(b"\x00" * (17 << 20)),
    "a zstd bomb": zstandard.ZstdCompressor().compress(b"\x00" * (64 << 20)),
    "compressed twice": zstandard.ZstdCompressor().compress(binary(1)),
    "too large": b"{" + b" " * (1 << 20),
}


async def test_garbage_of_every_kind_becomes_a_dead_letter_and_reception_goes_on(broker: Broker, path: Path) -> None:
    """Each with its reason and its whole payload, acknowledged, and shown as far as it can be read."""
    async with receiving(broker, path) as running, gateway(broker) as link:
        await send(link, PRESS.telemetry, *GARBAGE.values())
        await send(link, GATEWAY.status, b"\x80", b"{}", online().replace(b"1790000000000", b"-1"))
        await send(link, GatewayTopic(PLANT, "gw-2").status, online())  # says that it is gw-1
        await send(link, "factory/acme/north/p1/Press 1/telemetry", binary(1))
        await send(link, PRESS.telemetry, binary(1))
        await running.took(dead=len(GARBAGE) + 5, new=1)
        letters = await running.store.call(lambda store: store.dead_letters(100))
        payloads = await running.store.call(lambda store: {store.dead_letter(one.id)[1] for one in letters})
        assert payloads >= set(GARBAGE.values())
        assert all(letter.reason and "\n" not in letter.reason for letter in letters)
        assert all(explained(PRESS.telemetry, payload) for payload in payloads)
        assert (await running.totals()).readings == 2


async def test_another_content_under_a_number_that_is_stored_becomes_a_dead_letter(broker: Broker, path: Path) -> None:
    async with receiving(broker, path) as running, gateway(broker) as link:
        await send(link, PRESS.telemetry, binary(1), binary(1, value=9.0))
        await running.took(new=1, conflict=1)
        (letter,) = await running.store.call(lambda store: store.dead_letters())
        assert (await running.store.call(lambda store: store.dead_letter(letter.id)))[1] == binary(1, value=9.0)


async def command(*words: str, config: Path) -> str:
    """What a command of ours prints; beside the receiver, in a process of its own."""
    run = [sys.executable, "-m", "cloud.cli", *words, "--config", str(config)]
    process = await asyncio.create_subprocess_exec(*run, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    printed, _ = await process.communicate()
    assert process.returncode == 0, printed
    return printed.decode()


async def test_an_unknown_tenants_messages_wait_until_an_operator_adds_it(broker: Broker, tmp_path: Path) -> None:
    path, config = tmp_path / "cloud.db", tmp_path / "cloud.yaml"
    config.write_text(f"broker: {{host: 127.0.0.1}}\nstore: {{path: {path}}}\n")
    async with receiving(broker, path) as running, gateway(broker) as link:
        await send(link, PRESS.telemetry, binary(1), plain(2))
        await send(link, GATEWAY.status, online())
        await running.took(unknown=3)
        assert await running.totals() == Totals(events=0, readings=0, repeated=0, dead_letters=3)
        await command("tenant", "add", "acme", config=config)
        await command("plant", "add", "acme", "north", "p1", config=config)
        done = json.loads(await command("dlq", "replay", "--all", "--json", config=config))
        assert (done["replayed"], done["remaining"]) == (3, 0)
        assert (await running.totals()).readings == 4
        await send(link, PRESS.telemetry, binary(1), binary(3))  # the running receiver knows the plant by now
        await running.took(unknown=3, duplicate=1, new=1)
        (row,) = await running.store.call(lambda store: store.gateways())
        assert row.heard.status is not None and row.heard.alive_us is None  # a replayed heartbeat is history


# --- confirm ---


async def test_the_gateway_is_told_what_is_stored_and_what_is_missing(broker: Broker, path: Path) -> None:
    async with receiving(broker, path) as running, gateway(broker) as link:
        await send(link, PRESS.telemetry, binary(1), binary(2), binary(5))
        await running.took(new=3)
        said = await confirmed(link)
        while said.highest < 5:
            said = await confirmed(link)
        assert said == MachineConfirm(epoch=EPOCH, through=2, highest=5, missing=[(3, 4)])
        numbers = MachineNumbers(last_seq=9, sent_seq=6, dropped=[(3, 3, "outbox full")])
        await send(link, GATEWAY.status, online(machines={PRESS.machine: numbers}))
        assert await confirmed(link) == MachineConfirm(epoch=EPOCH, through=3, highest=5, missing=[(4, 4), (6, 6)])
        await send(link, PRESS.telemetry, binary(4), binary(6))
        while said.through < 6:
            said = await confirmed(link)
        assert said == MachineConfirm(epoch=EPOCH, through=6, highest=6)


async def test_a_gateways_name_from_a_payload_never_becomes_part_of_a_topic(broker: Broker, path: Path) -> None:
    names = ("x/+/#", "#", "+", "$share/a/b", "../gw", "GW 1", "")
    listener = MqttCloudLink(settings(broker), "listener")
    await listener.connect(["ops/#", "+/confirm", "x/#"])
    try:
        async with receiving(broker, path) as running, gateway(broker) as link:
            for number, name in enumerate(names):
                await send(link, MachineTopic(PLANT, f"m-{number}").telemetry, binary(1, sender=name))
            await send(link, PRESS.telemetry, binary(99))
            await running.took(new=len(names) + 1)
            await confirmed(link)
            async with asyncio.timeout(PATIENCE_S):
                heard = await listener.deliveries(100)
            assert {delivery.topic for delivery in heard} == {GATEWAY.confirm}
            assert running.receiver.state.listening_since_us is not None
    finally:
        await listener.close()


async def test_a_gateway_of_very_many_machines_gets_several_confirms(broker: Broker, path: Path) -> None:
    machines = [MachineTopic(PLANT, f"m-{number}") for number in range(LANES_MAX + 20)]
    async with receiving(broker, path) as running, gateway(broker) as link:
        for machine in machines:
            await send(link, machine.telemetry, binary(1))
        await running.took(new=len(machines))
        told: set[str] = set()
        while len(told) < len(machines):
            async with asyncio.timeout(PATIENCE_S):
                part = confirm.decode((await link.inbound()).payload)
            assert len(part.machines) <= LANES_MAX
            told |= part.machines.keys()


async def word(link: MqttAgentLink) -> Confirm:
    """The next confirm, whole."""
    async with asyncio.timeout(PATIENCE_S):
        return confirm.decode((await link.inbound()).payload)


async def test_a_gateway_that_connects_hears_at_once_even_if_nothing_is_known_of_it(
    broker: Broker, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent waits for it before it lets anything go: an empty account is a word, too."""
    monkeypatch.setattr(confirmer, "CALM_S", 10 * PATIENCE_S)
    async with receiving(broker, path) as running, gateway(broker) as link:
        await send(link, GATEWAY.status, online(7))
        assert (await word(link)).machines == {}
        await send(link, GATEWAY.status, online(7, timestamp=NOW_MS + 1))
        assert (await word(link)).machines == {}  # a heartbeat is answered, a little later
        await send(link, GATEWAY.status, online(8, machines={PRESS.machine: MachineNumbers(last_seq=2)}))
        assert await confirmed(link) == MachineConfirm(epoch=EPOCH, through=0)
        await running.took(beat=3)


async def test_confirms_are_rare_in_calm_and_brisk_while_something_is_missing(
    broker: Broker, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirmer, "CALM_S", 10 * PATIENCE_S)
    async with receiving(broker, path) as running, gateway(broker) as link:
        await send(link, PRESS.telemetry, binary(1))
        assert (await confirmed(link)).through == 1
        await send(link, PRESS.telemetry, binary(2), binary(3))
        await running.took(new=3)
        assert not link_has_news(link)
        await send(link, GATEWAY.status, online(9))  # a new session: at once, with what has gathered
        assert (await confirmed(link)).through == 3
        await send(link, PRESS.telemetry, mark(binary(4)))  # of a backlog
        assert (await confirmed(link)).through == 4
        await send(link, PRESS.telemetry, binary(7), binary(4))  # again, or with a gap
        assert (await confirmed(link)).missing == [(5, 6)]
        for seq in (5, 6):  # as long as there is a gap each step is told
            await send(link, PRESS.telemetry, binary(seq))
            assert (await confirmed(link)).through == (5 if seq == 5 else 7)


def link_has_news(link: MqttAgentLink) -> bool:
    assert link._connection is not None
    return len(link._connection._inbox) > 0


async def test_a_machine_gets_a_word_before_its_share_of_the_window_is_full(
    broker: Broker, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirmer, "CALM_S", 10 * PATIENCE_S)
    async with receiving(broker, path), gateway(broker) as link:
        told = 0
        for seq in range(1, 200):
            await send(link, PRESS.telemetry, binary(seq))
            if seq - told >= 15:  # its share is at least 16
                told = (await confirmed(link)).through
        assert told > 100


async def test_a_confirm_of_very_many_gaps_is_split_before_it_grows_too_large(broker: Broker, path: Path) -> None:
    top = 2**62
    gaps = [(top + 4 * at, top + 4 * at, "lost") for at in range(120)]
    machines = {f"m-{at}": MachineNumbers(last_seq=2**63 - 1, dropped=gaps) for at in range(15)}
    async with receiving(broker, path) as running, gateway(broker) as link:
        for at in range(0, 15, 5):  # a status has bounds of its own
            part = dict(list(machines.items())[at : at + 5])
            await send(link, GATEWAY.status, online(1, machines=part))
        await running.took(beat=3)
        told: dict[str, MachineConfirm] = {}
        while len(told) < 15:
            async with asyncio.timeout(PATIENCE_S):
                message = await link.inbound()
            assert len(message.payload) < 100_000
            told |= confirm.decode(message.payload).machines
        assert all(len(one.missing) == 100 for one in told.values())


# --- history ---


async def test_a_marked_message_is_the_same_message(broker: Broker, path: Path) -> None:
    """Sent live, then once more from the backlog: the mark is no part of it."""
    async with receiving(broker, path) as running, gateway(broker) as link:
        await send(link, PRESS.telemetry, binary(1), mark(binary(1)), mark(binary(2)), binary(2), mark(b"?"))
        await running.took(new=2, duplicate=2, dead=1)
        letters = await running.store.call(lambda store: store.dead_letters())
        assert [letter.size for letter in letters] == [len(mark(b"?"))]
        with closing(sqlite3.connect(path)) as connection:
            found = connection.execute("SELECT seq, historical FROM telemetry_events ORDER BY seq").fetchall()
        assert found == [(1, 0), (2, 1)]


# --- clones ---


async def test_a_clone_is_told_to_be_silent_and_the_first_goes_on(broker: Broker, path: Path) -> None:
    async with receiving(broker, path) as running, gateway(broker) as link:
        for session, instance, host in ((5, "aaaa", "line-7"), (2, "bbbb", "spare"), (6, "aaaa", "line-7")):
            await send(link, GATEWAY.status, online(session, instance=instance, host=host))
        await running.took(beat=3)
        said = await word(link)
        while not said.fenced:
            said = await word(link)
        assert said.fenced_instance == "bbbb"
        assert "spare" in said.fenced and "line-7" in said.fenced


# --- what an own gateway sends and nobody can read ---


async def test_a_gateway_that_got_another_name_hears_of_the_batches_that_have_the_old_one(
    broker: Broker, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirmer, "CALM_S", 10 * PATIENCE_S)  # no heartbeat of its own must be needed
    async with receiving(broker, path), gateway(broker) as link:
        await send(link, GATEWAY.status, online(7, machines={PRESS.machine: MachineNumbers(last_seq=20)}))
        assert (await confirmed(link)).through == 0
        for seq in range(1, 21, 4):
            await send(link, PRESS.telemetry, *(mark(binary(seq + at, sender="gw-0")) for at in range(4)))
            said = await confirmed(link)
            while said.through < seq + 3:
                said = await confirmed(link)


async def test_a_batch_that_can_never_be_read_stops_nobody_for_ever(broker: Broker, path: Path) -> None:
    """Its number can be told: it counts as dropped, with the dead letter's number, and what is behind it goes on."""
    broken = frames.pack([envelope.REFERRING, 2, [[REF, [b"\x01\x02\x03"]]]])
    async with receiving(broker, path) as running, gateway(broker) as link:
        await send(link, MAIN, DEFINITION, retain=True)
        await send(link, PRESS.telemetry, referring(1), broken, referring(3))
        await send(link, GATEWAY.status, online(machines={PRESS.machine: MachineNumbers(last_seq=3, sent_seq=3)}))
        await running.took(defined=1, new=2, dead=1, beat=1)
        said = await confirmed(link)
        while said.missing != [(2, 2)] and said.through < 3:
            said = await confirmed(link)
        await send(link, PRESS.telemetry, broken)  # it is asked for, and comes again
        while said.through < 3:
            said = await confirmed(link)
        (loss,) = await running.store.call(lambda store: store.losses(PRESS, EPOCH))
        (letter,) = await running.store.call(lambda store: store.dead_letters())
        assert (loss.first, loss.last, loss.reason.split(":")[0]) == (2, 2, f"dead letter {letter.id}")


async def test_after_a_restart_an_unknown_plants_referring_telemetry_is_kept_and_can_be_replayed(
    broker: Broker, tmp_path: Path
) -> None:
    path, config = tmp_path / "cloud.db", tmp_path / "cloud.yaml"
    config.write_text(f"broker: {{host: 127.0.0.1}}\nstore: {{path: {path}}}\n")
    async with gateway(broker) as link:
        async with receiving(broker, path) as running:
            await send(link, MAIN, DEFINITION, retain=True)
            await send(link, PRESS.telemetry, referring(1))
            await running.took(unknown=2)
        async with receiving(broker, path) as running:
            await send(link, PRESS.telemetry, referring(2))
            await until(lambda: running.receiver.state.outcomes["unknown"] >= 2)  # the retained definition, too
            assert (await running.totals()).dead_letters == 3
            assert running.receiver.state.outcomes["asked"] == 0
    with closing(SqliteStore(path)) as store:
        store.add_tenant(PLANT.tenant)
        store.add_plant(PLANT)
    done = json.loads(await command("dlq", "replay", "--all", "--json", config=config))
    assert (done["replayed"], done["remaining"]) == (3, 0)
    with closing(SqliteStore(path)) as store:
        assert store.ledgers(PRESS)[0].stored == ((1, 2),)


async def test_a_key_that_stands_twice_is_refused(broker: Broker, path: Path) -> None:
    twice = online()[:-1] + b',"epoch":"other"}'
    async with receiving(broker, path) as running, gateway(broker) as link:
        await send(link, GATEWAY.status, twice)
        await running.took(dead=1)
        (letter,) = await running.store.call(lambda store: store.dead_letters())
        assert letter.reason == "not a status message: a key stands twice in one object"


# --- presence ---


async def here(running: Running) -> Presence:
    (row,) = await running.store.call(lambda store: store.gateways())
    now_us = receiver._now_us()
    return presence(row.heard, now_us=now_us, listening_since_us=running.receiver.state.listening_since_us or now_us)


async def test_status_will_and_goodbye_drive_presence(broker: Broker, path: Path) -> None:
    async with receiving(broker, path) as running:
        async with wire(broker.port) as cable, gateway(cable) as link:
            await send(link, GATEWAY.status, online(), retain=True)
            await running.took(beat=1)
            assert await here(running) is Presence.ONLINE
            cable.cut()
            await running.took(beat=2)
            assert await here(running) is Presence.LOST
        async with gateway(broker, session=2) as link:
            await send(link, GATEWAY.status, online(2), retain=True)
            await running.took(beat=3)
            assert await here(running) is Presence.ONLINE
            await send(link, GATEWAY.status, will(1, NOW_MS).encode())  # a late will of the former connection
            await running.took(beat=4)
            assert await here(running) is Presence.ONLINE
            goodbye = online(2, state="offline", reason="shutdown")
            await send(link, GATEWAY.status, goodbye, retain=True)
        await running.took(beat=5)
        assert await here(running) is Presence.STOPPED


async def test_a_retained_status_at_the_start_is_no_sign_of_life(broker: Broker, path: Path) -> None:
    async with gateway(broker) as link:
        outcome = await link.publish(Message(GATEWAY.status, online(), retain=True))
        assert outcome is Outcome.NO_SUBSCRIBERS
    async with receiving(broker, path) as running:
        await running.took(beat=1)
        (row,) = await running.store.call(lambda store: store.gateways())
        assert row.heard.alive_us is None
        assert row.heard.status is not None
        assert await here(running) is Presence.UNKNOWN


# --- outages ---


def impatient(path: Path) -> SqliteStore:
    return SqliteStore(path, busy_timeout_s=0.05)


async def test_while_the_store_is_away_nothing_is_acknowledged(broker: Broker, path: Path) -> None:
    """The receiver dies in the outage: had it acknowledged anything, that would be lost."""
    async with gateway(broker) as link:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            async with receiving(broker, path, impatient) as running:
                other.execute("BEGIN IMMEDIATE")
                await send(link, PRESS.telemetry, binary(1), binary(2), b"garbage")
                await until(lambda: running.receiver.state.store_trouble != "")
                assert "another program holds its lock" in running.receiver.state.store_trouble
                assert not running.receiver.state.outcomes
            other.execute("ROLLBACK")
        async with receiving(broker, path) as running:
            await running.took(new=2, dead=1)


async def test_when_the_store_is_back_everything_is_taken(broker: Broker, path: Path) -> None:
    async with receiving(broker, path, impatient) as running, gateway(broker) as link:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for seq in range(1, 41):
                await send(link, PRESS.telemetry, binary(seq))
            await until(lambda: running.receiver.state.store_trouble != "")
            other.execute("ROLLBACK")
        await running.took(new=40)
        assert running.receiver.state.store_trouble == ""
        said = await confirmed(link)
        while said.through < 40:
            said = await confirmed(link)
        assert said == MachineConfirm(epoch=EPOCH, through=40, highest=40)


async def test_a_flood_while_the_store_is_away_waits_at_the_broker(broker: Broker, path: Path) -> None:
    """The receiver holds what one connection may send unacknowledged and no more, and afterwards all is stored."""
    count = 900
    async with receiving(broker, path, impatient) as running, gateway(broker) as link:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for seq in range(1, count + 1):
                await send(link, PRESS.telemetry, binary(seq))
            await until(lambda: running.receiver.state.store_trouble != "")
            connection = running.receiver._link._connection  # type: ignore[attr-defined]  # what it is made of
            assert 0 < len(connection._inbox) <= RECEIVE_MAX
            assert len(connection._inbox._unacknowledged) <= RECEIVE_MAX
            assert not running.receiver.state.outcomes
            other.execute("ROLLBACK")
        await running.took(new=count)
        assert (await running.store.call(lambda store: store.ledgers(PRESS)))[0].stored == ((1, count),)


async def test_a_lost_broker_is_told_at_once_and_found_again(
    broker: Broker, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver, "ROUND_S_MAX", 10 * PATIENCE_S)  # the news does not wait for the next round
    async with receiving(broker, path) as running:

        async def noted() -> bool | None:
            """What the database says: connected, not connected, or no receiver at all."""
            found = overview.receiving(await running.store.call(lambda store: store.receiver()), receiver._now_us())
            return found.connected if found is not None and found.running else None

        async def connected() -> bool:
            return await noted() is True

        async def away() -> bool:
            return await noted() is False

        await until(connected)
        await broker.stop()
        await until(away)
        assert running.receiver.state.listening_since_us is None
        assert f"127.0.0.1:{broker.port}" in running.receiver.state.trouble
        await broker.start()
        await until(connected)
        async with gateway(broker) as link:
            await send(link, PRESS.telemetry, binary(1))
            await running.took(new=1)
        assert running.receiver.state.trouble == ""
