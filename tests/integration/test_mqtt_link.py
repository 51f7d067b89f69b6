"""The MQTT link against real brokers: what the contract suite does not ask, because it is about MQTT alone.

A wait here has a limit only so that a failure says where it waited; no time is asserted.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trustme

from protocols.uplink import mqtt_inbox
from protocols.uplink.link import AgentLink, CloudLink, Delivery, LinkAway, LinkError, LinkRefused, Message, Outcome
from protocols.uplink.mqtt import BrokerSettings, MqttAgentLink, MqttCloudLink
from protocols.uplink.mqtt_connection import PACKETS_PER_TURN
from protocols.uplink.mqtt_inbox import Inbox, Receipt
from tests.support.brokers import Broker, Wire, free_port, mosquitto, nats, wire

T = TypeVar("T")

PATIENCE_S = 20.0
TELEMETRY = "factory/acme/north/p1/press/telemetry"
CONFIRM = "ops/acme/north/p1/gateway/gw-1/confirm"
WILL = Message("ops/acme/north/p1/gateway/gw-1/status", b"gone", retain=True)
FILTERS = ("factory/+/+/+/+/telemetry",)


async def soon(waiting: Awaitable[T]) -> T:
    """What it gives; TimeoutError where it never comes."""
    async with asyncio.timeout(PATIENCE_S):
        return await waiting


def settings(target: Broker | Wire, **more: Any) -> BrokerSettings:
    return BrokerSettings.model_validate({"host": "127.0.0.1", "port": target.port, "keep_alive_s": 5, **more})


@asynccontextmanager
async def agent_at(target: Broker | Wire, **more: Any) -> AsyncIterator[MqttAgentLink]:
    """gw-1, connected."""
    link = MqttAgentLink(settings(target, **more), "gw-1")
    await link.connect(WILL, CONFIRM)
    try:
        yield link
    finally:
        await link.close()


@asynccontextmanager
async def cloud_at(target: Broker | Wire, **more: Any) -> AsyncIterator[MqttCloudLink]:
    """The receiver, connected."""
    link = MqttCloudLink(settings(target, **more), "receiver")
    await link.connect(FILTERS)
    try:
        yield link
    finally:
        await link.close()


async def failure(given: BrokerSettings, kind: type[LinkError]) -> str:
    """The sentence with which connecting fails; it names the broker."""
    with pytest.raises(kind) as caught:
        await soon(MqttAgentLink(given, "gw-1").connect(WILL, CONFIRM))
    text = str(caught.value)
    assert text.startswith(f"MQTT broker {given.host}:{given.port}: ")
    assert "\n" not in text
    return text


async def lost(link: AgentLink) -> str:
    """The sentence with which the connection ends."""
    with pytest.raises(LinkAway) as caught:
        await soon(link.inbound())
    return str(caught.value)


async def everything(cloud: CloudLink, count: int) -> list[Delivery]:
    got: list[Delivery] = []
    while len(got) < count:
        got += await soon(cloud.deliveries(100))
    for delivery in got:
        delivery.ack()
    return got


# ── who may come in ─────────────────────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def guarded(folder: Path, acl: str = "topic readwrite #") -> AsyncIterator[Broker]:
    """Mosquitto that lets only `plant` with the password `right` in, and that user do what `acl` says."""
    users = folder / "users"
    command = ["mosquitto_passwd", "-b", "-c", str(users), "plant", "right"]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
    (folder / "acl").write_text(f"user plant\n{acl}\n")
    config = f"allow_anonymous false\npassword_file {users}\nacl_file {folder / 'acl'}"
    async with mosquitto(folder, config=config) as broker:
        yield broker


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_credentials(tmp_path: Path, version: str) -> None:
    async with guarded(tmp_path) as broker:
        for given in ({}, {"username": "plant"}, {"username": "plant", "password": "wrong"}):
            text = await failure(settings(broker, mqtt_version=version, **given), LinkRefused)
            assert "not authorised" in text
            assert "'gw-1'" in text
        secret = tmp_path / "secret"
        secret.write_text("right\n")
        async with agent_at(broker, mqtt_version=version, username="plant", password="right"):
            pass
        link = MqttAgentLink(
            settings(broker, mqtt_version=version, username="plant", password_file=str(secret)), "gw-1"
        )
        await link.connect(WILL, CONFIRM)
        secret.write_text("changed")
        with pytest.raises(LinkRefused):
            await link.connect(WILL, CONFIRM)
        secret.unlink()
        with pytest.raises(LinkRefused, match="secret"):
            await link.connect(WILL, CONFIRM)


async def test_a_publish_that_the_rules_deny_is_told_by_mqtt_5_only(tmp_path: Path) -> None:
    acl = f"topic readwrite ops/#\ntopic write {TELEMETRY}"
    user = {"username": "plant", "password": "right"}
    async with guarded(tmp_path, acl) as broker:
        async with agent_at(broker, **user) as link:
            elsewhere = Message("factory/other/north/p1/press/telemetry", b"x")
            assert await soon(link.publish(elsewhere)) is Outcome.DENIED
            assert await soon(link.publish(Message(TELEMETRY, b"x"))) is Outcome.NO_SUBSCRIBERS
        async with agent_at(broker, mqtt_version="3.1.1", **user) as link:
            assert await soon(link.publish(elsewhere)) is Outcome.ACCEPTED


async def test_a_subscription_that_the_broker_refuses(tmp_path: Path) -> None:
    rules = (
        "accounts { A { jetstream: enabled, users: "
        '[{ user: plant, password: right, permissions: { subscribe: { deny: ["ops.>"] } } }] } }'
    )
    async with nats(tmp_path, config=rules) as broker:
        text = await failure(settings(broker, username="plant", password="right"), LinkRefused)
    assert CONFIRM in text
    assert "'gw-1'" in text


# ── which MQTT ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_auto_falls_back_once_and_remembers(tmp_path: Path) -> None:
    async with nats(tmp_path) as broker:
        link = MqttAgentLink(settings(broker), "gw-1")
        for _ in range(3):
            assert (await link.connect(WILL, CONFIRM)).protocol == "MQTT 3.1.1"
        await link.close()
        assert broker.said().count("unacceptable protocol version") == 1


async def test_a_connection_that_is_dropped_once_does_not_settle_the_version(tmp_path: Path) -> None:
    async with mosquitto(tmp_path) as broker, wire(broker.port) as cable:
        link = MqttAgentLink(settings(cable), "gw-1")
        for drops, protocol in ((2, None), (1, "MQTT 3.1.1"), (0, "MQTT 5"), (1, None), (0, "MQTT 5")):
            cable.drop_next(drops)
            if protocol is None:
                with pytest.raises(LinkAway, match="instead of answering"):
                    await link.connect(WILL, CONFIRM)
            else:
                assert (await link.connect(WILL, CONFIRM)).protocol == protocol
        await link.close()


async def test_a_version_that_the_broker_does_not_speak(tmp_path: Path) -> None:
    async with nats(tmp_path) as broker:
        text = await failure(settings(broker, mqtt_version="5"), LinkRefused)
    assert "set mqtt_version to auto" in text


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_the_version_that_was_asked_for(tmp_path: Path, version: str) -> None:
    async with mosquitto(tmp_path, config="log_type all") as broker:
        async with agent_at(broker, mqtt_version=version):
            pass
        assert f"as gw-1 (p{'5' if version == '5' else '2'}, c0, k5)" in broker.said()  # and clean start 0


# ── sessions ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("version", ["5", "3.1.1"])
@pytest.mark.parametrize("survives", [True, False])
async def test_session_present_says_whether_the_broker_remembers(tmp_path: Path, version: str, survives: bool) -> None:
    async with mosquitto(tmp_path, survives_kill=survives) as broker:
        link = MqttAgentLink(settings(broker, mqtt_version=version), "gw-1")
        assert not (await link.connect(WILL, CONFIRM)).session_present
        assert (await link.connect(WILL, CONFIRM)).session_present
        async with cloud_at(broker) as cloud:
            for _ in range(10):  # changes enough for it to save
                await soon(link.publish(Message(TELEMETRY, b"x")))
            await everything(cloud, 10)
        await broker.kill()
        await broker.start()
        assert (await link.connect(WILL, CONFIRM)).session_present is survives
        await link.close()


async def test_another_client_with_the_same_id_is_named(tmp_path: Path) -> None:
    async with mosquitto(tmp_path) as broker, wire(broker.port) as cable, agent_at(cable) as link:
        cable.inject(b"\xe0\x02\x8e\x00")  # DISCONNECT, session taken over; Mosquitto 2.0.11 only hangs up
        assert "another client has connected with the same client id 'gw-1'" in await lost(link)


async def test_a_broker_that_says_why_it_hangs_up(tmp_path: Path) -> None:
    async with mosquitto(tmp_path) as broker, wire(broker.port) as cable, agent_at(cable) as link:
        cable.inject(b"\xe0\x02\x8b\x00")
        assert "Server shutting down" in await lost(link)


# ── TLS ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Certificates:
    ca: Path
    stranger_ca: Path
    client: Path
    client_key: Path
    stranger: Path
    stranger_key: Path

    @property
    def mine(self) -> dict[str, str]:
        return {"ca_file": str(self.ca), "cert_file": str(self.client), "key_file": str(self.client_key)}


@asynccontextmanager
async def tls_broker(folder: Path, name: str = "127.0.0.1") -> AsyncIterator[tuple[Broker, Certificates]]:
    """Mosquitto with a certificate for `name` that wants one of its clients, signed by the same authority."""
    ca, stranger_ca = trustme.CA(), trustme.CA()
    made = Certificates(*(folder / f"{file}.pem" for file in ("ca", "sca", "client", "key", "stranger", "skey")))
    ca.cert_pem.write_to_path(made.ca)
    stranger_ca.cert_pem.write_to_path(made.stranger_ca)
    for authority, cert, key in ((ca, made.client, made.client_key), (stranger_ca, made.stranger, made.stranger_key)):
        issued = authority.issue_cert("gw-1.acme", common_name="gw-1")
        issued.cert_chain_pems[0].write_to_path(cert)
        issued.private_key_pem.write_to_path(key)
    server = ca.issue_cert(name)
    server.cert_chain_pems[0].write_to_path(folder / "server.pem")
    server.private_key_pem.write_to_path(folder / "server.key")
    config = (
        f"cafile {made.ca}\ncertfile {folder / 'server.pem'}\nkeyfile {folder / 'server.key'}\n"
        "require_certificate true\nuse_identity_as_username true"
    )
    async with mosquitto(folder, config=config) as broker:
        yield broker, made


async def test_tls_with_a_client_certificate(tmp_path: Path) -> None:
    async with (
        tls_broker(tmp_path) as (broker, certificates),
        cloud_at(broker, tls=certificates.mine) as cloud,
        agent_at(broker, tls=certificates.mine) as agent,
    ):
        payloads = [os.urandom(100_000) for _ in range(60)]  # many TLS records each, both ways
        for at in range(0, 60, 20):
            publishes = [agent.publish(Message(TELEMETRY, payload)) for payload in payloads[at : at + 20]]
            assert set(await soon(asyncio.gather(*publishes))) == {Outcome.ACCEPTED}
        assert [delivery.payload for delivery in await everything(cloud, 60)] == payloads


async def test_messages_that_share_a_tls_record_all_arrive(tmp_path: Path) -> None:
    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    server.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    more = {"tls": {"ca_file": str(tmp_path / "ca.pem")}, "keep_alive_s": 3600}  # no ping that would stir it
    mqtt = f'tls {{ cert_file: "{tmp_path}/server.pem", key_file: "{tmp_path}/server.pem" }}'
    async with (
        nats(tmp_path, mqtt=mqtt) as broker,
        agent_at(broker, **more) as agent,
        cloud_at(broker, **more) as cloud,
    ):
        for turn in range(5):  # NATS writes what it has together; Mosquitto writes each packet as its own record
            payloads = [b"%d" % (100 * turn + number) for number in range(40)]
            publishes = [cloud.publish(Message(CONFIRM, payload)) for payload in payloads]
            assert set(await soon(asyncio.gather(*publishes))) == {Outcome.ACCEPTED}
            assert [(await soon(agent.inbound())).payload for _ in payloads] == payloads


async def test_tls_that_cannot_be_trusted(tmp_path: Path) -> None:
    async with tls_broker(tmp_path) as (broker, certificates):
        mine = certificates.mine
        text = await failure(settings(broker, tls={**mine, "ca_file": str(certificates.stranger_ca)}), LinkRefused)
        assert "its certificate is not trusted" in text
        assert "check ca_file" in text
        text = await failure(settings(broker, tls={**mine, "server_name": "elsewhere.acme"}), LinkRefused)
        assert "elsewhere.acme" in text
        text = await failure(settings(broker, tls={"ca_file": mine["ca_file"]}), LinkRefused)
        assert "check cert_file and key_file" in text
        stranger = {"cert_file": str(certificates.stranger), "key_file": str(certificates.stranger_key)}
        text = await failure(settings(broker, tls={**mine, **stranger}), LinkRefused)
        assert "check cert_file and key_file" in text
        await failure(settings(broker), LinkAway)  # without TLS where TLS is expected


async def test_tls_by_another_name(tmp_path: Path) -> None:
    async with tls_broker(tmp_path, "broker.acme") as (broker, certificates):
        await failure(settings(broker, tls=certificates.mine), LinkRefused)
        async with agent_at(broker, tls={**certificates.mine, "server_name": "broker.acme"}):
            pass


async def test_tls_files_that_are_not_there_or_not_a_pair(tmp_path: Path) -> None:
    async with tls_broker(tmp_path) as (broker, certificates):
        mine = certificates.mine
        for wrong in (
            {"ca_file": str(tmp_path / "nowhere.pem")},
            {"ca_file": str(certificates.client_key)},
            {"cert_file": str(tmp_path / "nowhere.pem")},
            {"key_file": str(certificates.stranger_key)},
        ):
            text = await failure(settings(broker, tls={**mine, **wrong}), LinkRefused)
            assert next(iter(wrong.values())) in text


async def test_tls_at_a_port_without(tmp_path: Path) -> None:
    async with mosquitto(tmp_path) as broker:
        assert "tls" in await failure(settings(broker, tls={}), LinkAway)  # Mosquitto hangs up without a word
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"220 mail.acme ready\r\n")
                connection.recv(100)

        thread = threading.Thread(target=answer)
        thread.start()
        given = BrokerSettings.model_validate({"host": "127.0.0.1", "port": server.getsockname()[1], "tls": {}})
        assert "does not speak TLS" in await failure(given, LinkRefused)
        thread.join()


# ── nobody there ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_nobody_listens() -> None:
    given = BrokerSettings(host="127.0.0.1", port=free_port())
    assert "connection refused; check host and port" in await failure(given, LinkAway)


async def test_a_name_that_is_none() -> None:
    assert "cannot be resolved" in await failure(BrokerSettings(host="broker..acme"), LinkAway)


async def test_a_broker_that_does_not_answer(tmp_path: Path) -> None:
    async with mosquitto(tmp_path) as broker:
        broker.freeze()
        text = await failure(settings(broker, connect_timeout_s=0.3), LinkAway)
        assert "no answer to CONNECT within 0.3 s" in text
        text = await failure(settings(broker, connect_timeout_s=0.3, tls={}), LinkAway)
        assert "no answer to the TCP connection and TLS handshake within 0.3 s" in text


async def test_a_connection_that_went_silent_is_found(tmp_path: Path) -> None:
    async with mosquitto(tmp_path) as broker, wire(broker.port) as cable, agent_at(cable, keep_alive_s=2) as link:
        cable.stall()
        publish = link.publish(Message(TELEMETRY, b"x"))
        assert "no sign of life" in await lost(link)
        assert await publish is Outcome.LOST


async def test_an_idle_connection_stays_up(tmp_path: Path) -> None:
    async with mosquitto(tmp_path) as broker, agent_at(broker, keep_alive_s=2) as link:
        waiting = asyncio.ensure_future(link.inbound())
        await asyncio.wait([waiting], timeout=4.5)  # the broker would drop a client silent for 3 s
        assert not waiting.done()
        async with cloud_at(broker) as cloud:
            await soon(cloud.publish(Message(CONFIRM, b"still there?")))
        assert (await soon(waiting)).payload == b"still there?"


# ── limits ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_brokers_receive_maximum_bounds_what_is_in_flight(tmp_path: Path) -> None:
    async with mosquitto(tmp_path, config="max_inflight_messages 5") as broker:
        link = MqttAgentLink(settings(broker, in_flight_max=30), "gw-1")
        assert (await link.connect(WILL, CONFIRM)).in_flight_max == 5
        await link.close()
        link = MqttAgentLink(settings(broker, in_flight_max=3), "gw-1")
        assert (await link.connect(WILL, CONFIRM)).in_flight_max == 3
        await link.close()


async def test_a_packet_over_the_brokers_limit_is_not_sent(tmp_path: Path) -> None:
    limit = 2000
    header = 1 + 2 + 2 + len(TELEMETRY) + 2 + 1  # type, length, topic, packet id, properties
    config = f"max_packet_size {limit}"
    async with mosquitto(tmp_path, config=config) as broker, cloud_at(broker) as cloud, agent_at(broker) as link:
        just = bytes(limit - header)
        assert await soon(link.publish(Message(TELEMETRY, just))) is Outcome.ACCEPTED
        assert link.publish(Message(TELEMETRY, just + b"x")).result() is Outcome.TOO_LARGE
        assert await soon(link.publish(Message(TELEMETRY, b"x"))) is Outcome.ACCEPTED
        assert [len(delivery.payload) for delivery in await everything(cloud, 2)] == [len(just), 1]


async def test_a_message_over_the_brokers_limit_is_told_and_the_connection_stays(tmp_path: Path) -> None:
    config = "message_size_limit 1000"
    async with mosquitto(tmp_path, config=config) as broker, cloud_at(broker) as cloud, agent_at(broker) as link:
        assert await soon(link.publish(Message(TELEMETRY, bytes(1001)))) is Outcome.TOO_LARGE
        assert await soon(link.publish(Message(TELEMETRY, bytes(1000)))) is Outcome.ACCEPTED
        await everything(cloud, 1)


async def test_a_puback_code_that_nobody_knows_is_a_refusal(tmp_path: Path) -> None:
    async with mosquitto(tmp_path) as broker, wire(broker.port) as cable, agent_at(cable) as link:
        broker.freeze()
        first = link.publish(Message(TELEMETRY, b"x"))
        cable.inject(b"\x40\x04\x00\x02\xee\x00")  # packet id 2: SUBSCRIBE was 1
        assert await soon(first) is Outcome.REFUSED
        broker.thaw()
        assert await soon(link.publish(Message(TELEMETRY, b"x"))) is Outcome.NO_SUBSCRIBERS


# ── what a broker may send ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 20,  # AUTH, never ending length
        b"\x00\x00",  # reserved type
        b"\x30\x00",  # PUBLISH without a topic
        b"\x32\x05\x00\x09abc",  # PUBLISH whose topic is longer than the packet
        b"\x32\x06\x00\x01a\x00\x01\x7f",  # PUBLISH whose properties are longer than the packet
        b"\x20\x03\x00\x00\x7f",  # a second CONNACK, whose properties are longer than the packet
        b"\x40\x01\x00",  # PUBACK with half an id
        b"\x90\x01\x00",  # SUBACK with half an id
        b"\xe0\x01\x03",  # DISCONNECT with an unknown code
        b"\x15\x03\x03\x00\x02\x02\x28",  # an alert of TLS
    ],
)
async def test_garbage_ends_the_connection_in_a_sentence(tmp_path: Path, data: bytes) -> None:
    async with mosquitto(tmp_path) as broker, wire(broker.port) as cable, agent_at(cable, keep_alive_s=2) as link:
        cable.inject(data)
        text = await lost(link)
        assert text.startswith("MQTT broker 127.0.0.1:")
        await link.connect(WILL, CONFIRM)
        assert await soon(link.publish(Message(TELEMETRY, b"x"))) is Outcome.NO_SUBSCRIBERS


async def test_what_arrives_at_once_is_delivered_together(tmp_path: Path) -> None:
    async with mosquitto(tmp_path) as broker, wire(broker.port) as cable, cloud_at(cable) as cloud:
        count = 2 * PACKETS_PER_TURN + 1
        cable.inject(b"".join(b"\x30\x06\x00\x01a\x00" + number.to_bytes(2) for number in range(count)))
        got: list[Delivery] = []
        turns = 0
        while len(got) < count:
            got += await soon(cloud.deliveries(count))
            turns += 1
        assert [int.from_bytes(delivery.payload) for delivery in got] == list(range(count))
        assert turns < count / 2


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_nothing_more_is_read_while_too_many_bytes_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(mqtt_inbox, "BYTES_MAX", 300_000)
    payloads = [bytes([number]) * 100_000 for number in range(15)]
    async with (
        mosquitto(tmp_path) as broker,
        cloud_at(broker, mqtt_version=version) as cloud,
        agent_at(broker) as agent,
    ):
        sent = await asyncio.gather(*(agent.publish(Message(TELEMETRY, payload)) for payload in payloads))
        assert set(sent) == {Outcome.ACCEPTED}
        got: list[Delivery] = []
        while len(got) < 3:
            got += await soon(cloud.deliveries(100))
        await agent.publish(Message(TELEMETRY, b"last"))  # to the broker and back: the line had its chance
        assert len(got) == 3
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await cloud.deliveries(100)
        at = 0
        while at < len(payloads) + 1:
            got += [] if at < len(got) else await soon(cloud.deliveries(100))
            assert len(got) - at <= 3
            got[at].ack()
            at += 1
        assert [delivery.payload for delivery in got] == [*payloads, b"last"]


async def test_an_exception_inside_ends_the_connection_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(inbox: Inbox, receipt: Receipt) -> bool:
        raise KeyError("a mistake of ours")

    async with mosquitto(tmp_path) as broker, agent_at(broker) as link, cloud_at(broker) as cloud:
        with monkeypatch.context() as patched:
            patched.setattr(Inbox, "put", fail)
            await soon(cloud.publish(Message(CONFIRM, b"x")))
            assert "a mistake of ours" in await lost(link)
        await link.connect(WILL, CONFIRM)
        assert await soon(link.inbound()) == Message(CONFIRM, b"x")


async def test_a_topic_that_is_not_text_is_delivered_under_another(tmp_path: Path) -> None:
    async with mosquitto(tmp_path) as broker, wire(broker.port) as cable, cloud_at(cable) as cloud:
        cable.inject(b"\x30\x06\x00\x02\xff\xfe\x00x")
        [delivery] = await soon(cloud.deliveries(10))
        assert (delivery.topic, delivery.payload) == ("(not UTF-8)", b"x")
        delivery.ack()
        await soon(cloud.publish(Message(TELEMETRY, b"next")))
        assert [delivery.payload for delivery in await everything(cloud, 1)] == [b"next"]


# ── nothing is left behind ──────────────────────────────────────────────────────────────────────────────────────────


def descriptors() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_no_socket_thread_or_task_is_left(tmp_path: Path) -> None:
    async with mosquitto(tmp_path) as broker, wire(broker.port) as cable:
        link = MqttAgentLink(settings(cable), "gw-1")
        await link.connect(WILL, CONFIRM)  # the first time starts asyncio's own threads for name lookup
        await link.close()
        await asyncio.sleep(0.05)
        before, threads, tasks = descriptors(), threading.active_count(), len(asyncio.all_tasks())
        for _ in range(5):
            await link.connect(WILL, CONFIRM)
            await link.connect(WILL, CONFIRM)
            cable.cut()
            await lost(link)
            await failure(settings(cable, password_file=str(tmp_path / "none"), username="x"), LinkRefused)
            await failure(BrokerSettings(host="127.0.0.1", port=free_port()), LinkAway)
        await link.close()
        broker.freeze()
        for given in (settings(broker), settings(broker, tls={})):
            connecting = asyncio.ensure_future(MqttAgentLink(given, "gw-1").connect(WILL, CONFIRM))
            await asyncio.wait([connecting], timeout=0.1)
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting
        broker.thaw()
        await asyncio.sleep(0.05)
        assert descriptors() == before
        assert threading.active_count() == threads
        assert len(asyncio.all_tasks()) == tasks
