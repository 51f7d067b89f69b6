"""SIGKILL at random points, and what kills bring with them: unacknowledged messages, late wills."""

from __future__ import annotations

import asyncio

from tests.faults.line import Line, Setup
from tests.faults.oracle import Verdict
from tests.faults.services import Service
from tests.faults.stage import Row, Stage


async def _random_point(line: Line) -> None:
    """A third while it starts, a third at once when readings flow again, a third some time later, flow or not."""
    match line.rng.randrange(3):
        case 0:
            await line.pause(0, 1.0)
        case 1:
            await line.recovers("after a kill")
            await line.pause(0, 0.1)
        case _:
            await line.pause(0.5, 2.5)


async def kill_agent(stage: Stage) -> Verdict:
    async with stage.line() as line:
        for _ in range(stage.count):
            await _random_point(line)
            await line.kill_agent(line.gateway)
            line.gateway.service.start()
            line.injections += 1
        await line.recovers("after the last kill")
        return await stage.verdict(line)


async def kill_receiver(stage: Stage) -> Verdict:
    async with stage.line() as line:
        for _ in range(stage.count):
            await _random_point(line)
            await _kill(line.receiver)
            line.receiver.start()
            line.injections += 1
        await line.recovers("after the last kill")
        return await stage.verdict(line)


async def kill_broker(stage: Stage) -> Verdict:
    async with stage.line() as line:
        for _ in range(stage.count):
            await _random_point(line)
            await line.broker.kill()
            if line.rng.random() < 0.3:
                await line.pause(0, 0.5)
            await line.broker.start()
            line.injections += 1
        await line.recovers("after the last kill")
        return await stage.verdict(line)


async def kill_several(stage: Stage) -> Verdict:
    """Two or three of them within a moment, up again in any order."""
    async with stage.line() as line:
        while line.injections < stage.count:
            await _random_point(line)
            victims = line.rng.sample(["agent", "receiver", "broker"], line.rng.randint(2, 3))
            for victim in victims:
                match victim:
                    case "agent":
                        await line.kill_agent(line.gateway)
                    case "receiver":
                        await _kill(line.receiver)
                    case _:
                        await line.broker.kill()
                await line.pause(0, 0.05)
                line.injections += 1
            line.rng.shuffle(victims)
            for victim in victims:
                match victim:
                    case "agent":
                        line.gateway.service.start()
                    case "receiver":
                        line.receiver.start()
                    case _:
                        await line.broker.start()
                await line.pause(0, 0.3)
        await line.recovers("after the last kill")
        return await stage.verdict(line)


async def _kill(service: Service) -> None:
    await asyncio.to_thread(service.kill)


async def commit_before_ack(stage: Stage) -> Verdict:
    """The receiver hears and commits, its acknowledgements never reach the broker, then it is killed."""
    async with stage.line(Setup(receiver_proxy=True)) as line:
        for _ in range(stage.count):
            await line.flows("before the acknowledgements are held up")
            line.receiver_proxy.up.open.clear()
            await line.pause(0.1, 0.3)  # what was under way has arrived
            await line.flows("into the database while no acknowledgement leaves", patience_s=20)
            await _kill(line.receiver)
            line.receiver_proxy.cut()
            line.receiver_proxy.heal()
            line.receiver.start()
            line.injections += 1
            await line.recovers("after the receiver was killed between commit and acknowledgement")
        return await stage.verdict(line)


async def will_race(stage: Stage) -> Verdict:
    """The old connection stays open at the broker while the next life connects, so the old will comes late."""
    async with stage.line(Setup(agent_proxy=True)) as line:
        for _ in range(stage.count):
            if line.rng.random() < 0.5:
                line.agent_proxy.blackhole()
                await line.kill_agent(line.gateway)
                await line.pause(0, 0.5)
                line.agent_proxy.up.open.set()  # for the next connection; what the dead one left unsaid comes, too
                line.agent_proxy.down.open.set()
            else:
                await line.kill_agent(line.gateway)
            line.gateway.service.start()
            if line.rng.random() < 0.3:
                await line.pause(0.5, 1.2)
                await line.kill_agent(line.gateway)
                line.gateway.service.start()
            line.injections += 1
            await line.recovers("after a restart")
            await asyncio.sleep(line.rng.choice([0.0, 5.0]))  # keep_alive_s 3: its will comes within 4.5 s
            await line.until("the gateway is online", lambda: _online(line), patience_s=30)
        await asyncio.sleep(5)
        await line.until("the gateway is still online", lambda: _online(line), patience_s=1)
        return await stage.verdict(line)


def _online(line: Line) -> bool:
    """The receiver's word on presence: the last that counts was not an end."""
    rows = line.store.ask("SELECT name FROM gateways WHERE ended = '' AND alive_us IS NOT NULL")
    return {name for (name,) in rows} >= {gateway.thing for gateway in line.gateways}


_LONG_S = 3600.0

ROWS = (
    Row("kill-agent", "SIGKILL of the agent at random points", kill_agent, 300, 4, timeout_s=_LONG_S),
    Row("kill-receiver", "SIGKILL of the receiver at random points", kill_receiver, 300, 3, timeout_s=_LONG_S),
    Row(
        "kill-broker",
        "SIGKILL of the broker at random points; it forgets everything",
        kill_broker,
        300,
        3,
        timeout_s=_LONG_S,
    ),
    Row("kill-several", "SIGKILL of two or three of them at once", kill_several, 120, 0),
    Row("commit-ack", "receiver killed between commit and acknowledgement", commit_before_ack, 25, 1),
    Row("will-race", "the last will of a former life arrives after the next life's greeting", will_race, 25, 0),
)
