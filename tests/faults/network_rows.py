"""Brokers that forget, overflow or deny, and lines that break."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.faults.line import Line, Setup
from tests.faults.oracle import Verdict
from tests.faults.proxy import HOST, Proxy
from tests.faults.stage import Row, Stage

RECEIVER_ID = "holdfast-receiver"


async def broker_wiped(stage: Stage) -> Verdict:
    """Its memory and its disk are gone while messages wait in it for the receiver."""
    async with stage.line() as line:
        for _ in range(stage.count):
            await asyncio.to_thread(line.receiver.kill)
            await line.pause(0.2, 1.5)
            await line.broker.kill()
            for file in (stage.folder / "broker").glob("mosquitto.db*"):
                file.unlink()
            await line.broker.start()
            line.receiver.start()
            line.injections += 1
            await line.recovers("after the broker was wiped")
        return await stage.verdict(line)


async def queue_overflow(stage: Stage) -> Verdict:
    """Several gateways publish more for an absent receiver than Mosquitto keeps by default (1000 messages)."""
    async with stage.line(Setup(gateways=4, sources=4)) as line:
        for _ in range(stage.count):
            await asyncio.to_thread(line.receiver.kill)
            before = _thrown_away(line)
            await line.pause(6, 9)  # 320 messages a second
            line.receiver.start()
            line.injections += 1
            await line.recovers("after the broker's queue ran over")
            stage.outcome.notes.append(f"the broker threw messages away {_thrown_away(line) - before} times")
        verdict = await stage.verdict(line)
        if not _thrown_away(line):
            verdict.faults.append("the broker's queue never ran over: this row has shown nothing")
        return verdict


def _thrown_away(line: Line) -> int:
    return line.broker.log.read_text(errors="replace").count("Outgoing messages are being dropped")


async def session_lost(stage: Stage) -> Verdict:
    """While the receiver is away, its session ends at the broker, with all that waited in it."""
    async with stage.line() as line:
        for _ in range(stage.count):
            await asyncio.to_thread(line.receiver.kill)
            await line.pause(0.3, 2.0)
            await asyncio.to_thread(_end_session, line.broker.port, RECEIVER_ID)
            line.receiver.start()
            line.injections += 1
            await line.recovers("after the receiver's session was lost")
        return await stage.verdict(line)


def _end_session(port: int, client_id: str) -> None:
    """As this client, once, with a clean start and no session afterwards."""
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=MQTTProtocolVersion.MQTTv5)
    connected = []
    client.on_connect = lambda *_: connected.append(True)
    client.connect(HOST, port, clean_start=True)
    for _ in range(500):
        client.loop(0.02)
        if connected:
            break
    assert connected, "the broker does not take the session's end"
    client.disconnect()
    client.loop(0.1)


_DENIALS = (
    "topic read factory/#\ntopic readwrite ops/#\n",  # telemetry and definitions may not be written
    "topic write factory/#\ntopic readwrite ops/#\n",  # nor read
    "topic readwrite factory/#\ntopic write ops/#\n",  # confirms arrive no more
    "topic readwrite factory/+/+/+/+/telemetry\ntopic readwrite ops/#\n",  # no definitions
)
_ALL = "topic readwrite #\n"


async def acl_denial(stage: Stage) -> Verdict:
    """The access rules forget something, and are mended later. What is denied vanishes without an error in MQTT 3."""
    rules = stage.folder / "acl"
    rules.write_text(_ALL)
    async with stage.line(Setup(broker_config=f"acl_file {rules}")) as line:
        for at in range(stage.count):
            rules.write_text(_DENIALS[at % len(_DENIALS)])
            line.broker.reload()
            if line.rng.random() < 0.5:
                await line.kill_agent(line.gateway)
                line.gateway.service.start()
            await line.pause(1.0, 4.0)
            rules.write_text(_ALL)
            line.broker.reload()
            line.injections += 1
            await line.recovers("after the access rules were mended")
        return await stage.verdict(line)


# --- lines ---


def _line_row(injure: Callable[[Line, Proxy], Awaitable[None]]) -> Callable[[Stage], Awaitable[Verdict]]:
    """A row where the line of the agent, of the receiver, or of both is injured, and mended again."""

    async def play(stage: Stage) -> Verdict:
        async with stage.line(Setup(agent_proxy=True, receiver_proxy=True)) as line:
            for _ in range(stage.count):
                proxies = line.rng.choice([[line.agent_proxy], [line.receiver_proxy],
                                           [line.agent_proxy, line.receiver_proxy]])  # fmt: skip
                await asyncio.gather(*(injure(line, proxy) for proxy in proxies))
                for proxy in proxies:
                    proxy.heal()
                line.injections += 1
                if line.rng.random() < 0.5:
                    await line.recovers("after the line was mended")
            await line.recovers("after the line was mended")
            return await stage.verdict(line)

    return play


async def _cut(line: Line, proxy: Proxy) -> None:
    await line.pause(0, 1.0)
    proxy.cut()


async def _blackhole(line: Line, proxy: Proxy) -> None:
    match line.rng.randrange(3):
        case 0:
            proxy.blackhole()
        case 1:
            proxy.up.open.clear()
        case _:
            proxy.down.open.clear()
    await line.pause(1, 10)  # keep_alive_s is 3: some are noticed, some are not
    if line.rng.random() < 0.5:
        proxy.cut()


async def _crawl(line: Line, proxy: Proxy) -> None:
    proxy.throttle(line.rng.choice([1.0, 100.0]))
    await line.pause(2, 10)


ROWS = (
    Row("broker-wiped", "the broker loses memory and disk while messages wait in it", broker_wiped, 20, 0),
    Row("queue-overflow", "more messages wait for the receiver than Mosquitto keeps by default", queue_overflow, 4, 0),
    Row("session-lost", "the receiver's session ends at the broker, and what waited in it", session_lost, 25, 1),
    Row("acl-denial", "the broker's access rules deny something for a while", acl_denial, 12, 0),
    Row("tcp-cut", "connections are reset", _line_row(_cut), 100, 3),
    Row("tcp-blackhole", "connections go dead, in one direction or both", _line_row(_blackhole), 20, 0),
    Row("tcp-crawl", "1 byte a second, or 100", _line_row(_crawl), 16, 0),
)
