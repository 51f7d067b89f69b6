"""Long outages and long runs, accelerated: the agent's time of day runs faster, its work is as quick as it can be."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

from tests.faults.line import Line, Setup
from tests.faults.memory import MemoryWatch, grows, told
from tests.faults.oracle import Verdict
from tests.faults.shim import Shim, no_shim
from tests.faults.stage import Row, Stage
from tests.faults.store_rows import lock_store

HOUR_S = 3600.0


async def backlog(stage: Stage) -> Verdict:
    """48 h without a broker: the readings' times span two days; then everything is sent, new readings beside it."""
    shim = Shim(stage.folder, stage.folder / "nothing", 1)
    true_s = stage.count / _BACKLOG_RATE
    async with stage.line(Setup(sources=16, clock="always", agent_env=shim.environ)) as line:
        gateway = line.gateway
        await asyncio.to_thread(gateway.service.stop)
        await line.broker.kill()
        shim.set_clock(-48 * HOUR_S, 48 * HOUR_S / true_s)
        gateway.service.start()
        before = line.given()
        await line.until("the backlog is there", lambda: line.given() - before >= stage.count, 3 * true_s + 60)
        await line.kill_agent(gateway)
        shim.set_clock(0)
        await line.broker.start()
        gateway.service.start()
        line.injections += line.given() - before
        began_s = time.monotonic()
        await line.recovers("beside the backlog", 300)
        lags_s = await line.drained(600)
        took_s = time.monotonic() - began_s
        count, lag_s = line.injections, statistics.median(lags_s)
        stage.outcome.notes.append(
            f"{count:,} readings of 48 h were replayed in {took_s:.0f} s ({count / took_s:.0f}/s); beside them new ones"
            f" were in the database {lag_s:.1f} s after they were asked for (median; worst {max(lags_s):.1f} s)"
        )
        verdict = await stage.verdict(line)
        if lag_s > _LIVE_S:
            verdict.faults.append(f"new readings waited for the backlog: {lag_s:.1f} s, {_LIVE_S:.0f} s are allowed")
        return verdict


_BACKLOG_RATE = 320.0  # 16 devices, 20 reads a second each
_LIVE_S = 2.0  # two poll periods of the usual second; here are 16 devices, of which each must have got through

SOAK_S = 360.0


async def soak(stage: Stage) -> Verdict:
    """24 h of the agent's time, with one fault after another of every kind that needs no special disk."""
    shim = Shim(stage.folder, stage.folder / "nothing", 1)
    true_s = SOAK_S * stage.count / 100
    setup = Setup(clock="always", agent_env=shim.environ, agent_proxy=True, receiver_proxy=True)
    async with stage.line(setup) as line:
        shim.set_clock(-24 * HOUR_S, 24 * HOUR_S / true_s)
        end_s = time.monotonic() + true_s
        while time.monotonic() < end_s:
            await line.rng.choice(_FAULTS)(line)
            line.injections += 1
            if line.rng.random() < 0.3:
                await line.recovers("in the long run")
            else:
                await line.pause(0, 3)
        await line.recovers("after the long run")
        return await stage.verdict(line)


STEADY_S = 360.0
_STORE_AWAY_S = 25.0


async def steady(stage: Stage) -> Verdict:
    """As many batches as a machine that is read every second gives in 24 h, in the agent's 24 h; everything fails but
    the two programs, which must not grow. Halfway the store is away for a while."""
    shim = Shim(stage.folder, stage.folder / "nothing", 1)
    true_s = STEADY_S * stage.count / 100
    setup = Setup(sources=12, clock="always", agent_env=shim.environ, agent_proxy=True, receiver_proxy=True)
    async with stage.line(setup) as line:
        shim.set_clock(-24 * HOUR_S, 24 * HOUR_S / true_s)
        memory = MemoryWatch(line.services, {"receiver": line.store.path})
        watching = asyncio.create_task(memory.run(), name="memory")
        end_s = time.monotonic() + true_s
        await _disturbed(line, end_s - true_s / 2)
        await _lock_store(line, _STORE_AWAY_S)
        line.injections += 1
        await line.recovers("after the store was away")
        await _disturbed(line, end_s)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)  # a program that has ended is told by its exits
        await line.recovers("after the long run")
        verdict = await stage.verdict(line)
        for name, samples in memory.samples.items():
            grown = grows(samples)
            (verdict.faults if grown else stage.outcome.notes).append(
                ("it grows: " if grown else "") + told(name, samples)
            )
        return verdict


async def _disturbed(line: Line, until_s: float) -> None:
    while time.monotonic() < until_s:
        await line.rng.choice(_DISTURBANCES)(line)
        line.injections += 1
        await line.pause(2, 8)
        await line.recovers("in the steady run")


async def _kill_agent(line: Line) -> None:
    await line.kill_agent(line.gateway)
    line.gateway.service.start()


async def _stop_agent(line: Line) -> None:
    await asyncio.to_thread(line.gateway.service.stop)
    line.gateway.service.start()


async def _kill_receiver(line: Line) -> None:
    await asyncio.to_thread(line.receiver.kill)
    await line.pause(0, 2)
    line.receiver.start()


async def _kill_broker(line: Line) -> None:
    await line.broker.kill()
    await line.pause(0, 2)
    await line.broker.start()


async def _cut(line: Line) -> None:
    line.agent_proxy.cut()
    line.receiver_proxy.cut()


async def _go_dead(line: Line) -> None:
    proxy = line.rng.choice([line.agent_proxy, line.receiver_proxy])
    proxy.blackhole()
    await line.pause(1, 8)
    proxy.heal()


async def _freeze(line: Line) -> None:
    """A program, or the broker, stands still: a laptop's lid, a virtual machine that moves."""
    service = line.rng.choice([line.gateway.service, line.receiver])
    line.freeze(service)
    line.broker.freeze()
    await line.pause(1, 6)
    line.thaw(service)
    line.broker.thaw()
    await line.pause(1, 2)  # what it had in hand all that time gets to the disk


async def _lock_store(line: Line, for_s: float = 0.0) -> None:
    connection = await asyncio.to_thread(lock_store, line)
    await line.pause(for_s or 0.3, for_s or 4)
    connection.close()


_Fault = Callable[[Line], Awaitable[None]]
_DISTURBANCES: tuple[_Fault, ...] = (_kill_broker, _cut, _go_dead, _freeze, _lock_store)
_FAULTS: tuple[_Fault, ...] = (_kill_agent, _stop_agent, _kill_receiver, *_DISTURBANCES)

ROWS = (
    Row("backlog-48h", "48 h without a broker, replayed; injections: readings", backlog, 30_000, 0, (no_shim,)),
    Row("soak-24h", "24 h with one fault after another", soak, 100, 0, (no_shim,)),
    Row("soak-memory", "24 h without a restart: neither program grows", steady, 100, 0, (no_shim,)),
)
