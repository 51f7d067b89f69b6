"""Disks: power cuts, fsync that fails, no space, a full file system, slowness; under either program."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tests.faults.disks import LoopDisk, loop_disk, no_power_cut
from tests.faults.line import Line, Setup
from tests.faults.oracle import Verdict
from tests.faults.shim import Shim, no_shim
from tests.faults.stage import Row, Stage

# --- power cuts ---


async def power_agent(stage: Stage) -> Verdict:
    """What is visible in the outbox as committed before the cut must be there after it; so must all older answers."""
    with loop_disk(stage.folder) as disk:
        async with stage.line(Setup(agent_dir=disk.path)) as line:
            for _ in range(stage.count):
                if line.rng.random() < 0.5:  # so that something waits in the outbox
                    await line.kill_broker()
                    await line.pause(0.2, 1.5)
                else:
                    await line.pause(0, 1.0)
                await asyncio.to_thread(line.note_outbox, line.gateway, live=True)
                await asyncio.to_thread(disk.cut_power)
                await asyncio.to_thread(line.gateway.service.kill)
                await asyncio.to_thread(disk.boot)
                await line.broker_runs()
                line.gateway.service.start()
                line.injections += 1
                await line.recovers("after the gateway's power was cut")
            return await stage.verdict(line)


async def power_receiver(stage: Stage) -> Verdict:
    """Gateways keep nothing that was confirmed here, so that what the receiver forgets cannot come again."""
    with loop_disk(stage.folder) as disk:
        async with stage.line(Setup(store_dir=disk.path, outbox={"grace_s": 0})) as line:
            for _ in range(stage.count):
                await line.pause(0, 1.5)
                await asyncio.to_thread(disk.cut_power)
                await line.pause(0, 0.3)  # it may go on for a moment on a disk that takes nothing
                await asyncio.to_thread(line.receiver.kill)
                await asyncio.to_thread(disk.boot)
                line.receiver.start()
                line.injections += 1
                await line.recovers("after the receiver's power was cut")
            return await stage.verdict(line)


# --- calls that fail ---

Break = Callable[[Shim, float], None]
_CALLS_S = 240.0  # a receiver whose commits fail waits up to five seconds before the next


def _with_shim(whose: str, spoil: Break) -> Callable[[Stage], Awaitable[Verdict]]:
    """A row where calls of the agent's or the receiver's disk fail at random, in bouts."""

    async def play(stage: Stage) -> Verdict:
        agent_dir, store_dir = stage.folder / "agent-home", stage.folder / "store-home"
        agent_dir.mkdir()
        store_dir.mkdir()
        shim = Shim(stage.folder, agent_dir if whose == "agent" else store_dir, stage.rng.randrange(2**31))
        setup = Setup(
            agent_dir=agent_dir,
            store_dir=store_dir,
            agent_env=shim.environ if whose == "agent" else {},
            receiver_env=shim.environ if whose == "receiver" else {},
        )
        async with stage.line(setup) as line:
            end = shim.injected + stage.count
            while shim.injected < end:
                goal = shim.injected + line.rng.randint(1, 12)
                if whose == "agent" and line.rng.random() < 0.3:  # so that something waits in the outbox
                    await line.kill_broker()
                    await line.pause(0.2, 1.0)
                spoil(shim, line.rng.choice([0.05, 0.3, 1.0]))
                await line.until("calls fail", lambda goal=goal: shim.injected >= goal, _CALLS_S)  # type: ignore[misc]
                await line.pause(0, 0.3)
                shim.set()
                await line.broker_runs()
                line.injections = shim.injected
                await line.recovers("after calls of the disk failed")
            return await stage.verdict(line)

    return play


def _fsync_fails(shim: Shim, part: float) -> None:
    shim.set(fsync_eio=part)


def _reads_fail(shim: Shim, part: float) -> None:
    shim.set(read_eio=part, fsync_eio=part / 4)  # reads are few: SQLite has most of it in its cache


def _no_space(shim: Shim, part: float) -> None:
    shim.set(no_space=part)


def _slow(shim: Shim, part: float) -> None:
    shim.set(slow_s=part * 1.5)


# --- a full file system ---


async def disk_full_agent(stage: Stage) -> Verdict:
    """Another program fills the gateway's disk while the broker is away, and frees it again."""
    with loop_disk(stage.folder, 48) as disk:
        async with stage.line(Setup(agent_dir=disk.path)) as line:
            for _ in range(stage.count):
                await line.broker.kill()
                await asyncio.to_thread(disk.fill)
                await line.pause(1.5, 4.0)
                if line.rng.random() < 0.5:  # drained while full
                    await line.broker.start()
                    await line.pause(1.0, 3.0)
                    await asyncio.to_thread(disk.empty)
                else:
                    await asyncio.to_thread(disk.empty)
                    await line.broker.start()
                line.injections += 1
                await line.recovers("after the gateway's disk was full")
            return await stage.verdict(line)


async def disk_full_receiver(stage: Stage) -> Verdict:
    with loop_disk(stage.folder, 32) as disk:
        async with stage.line(Setup(store_dir=disk.path)) as line:
            for _ in range(stage.count):
                await _full_for_a_while(line, disk)
                line.injections += 1
                await line.recovers("after the receiver's disk was full")
            return await stage.verdict(line)


async def _full_for_a_while(line: Line, disk: LoopDisk) -> None:
    await asyncio.to_thread(disk.fill)
    await line.pause(1.0, 4.0)
    if line.rng.random() < 0.3:
        await asyncio.to_thread(line.receiver.kill)
        line.receiver.start()
        await line.pause(1.0, 2.0)
    await asyncio.to_thread(disk.empty)


_POWER, _SHIM = (no_power_cut,), (no_shim,)

ROWS = (
    Row("power-agent", "power cut of the gateway's file system (ext4, FS_IOC_SHUTDOWN)", power_agent, 40, 2, _POWER),
    Row("power-receiver", "power cut of the receiver's file system", power_receiver, 40, 1, _POWER, exits=True),
    Row("eio-agent", "fsync of the outbox fails with EIO", _with_shim("agent", _fsync_fails), 300, 8, _SHIM),
    Row("read-agent", "reads of the outbox fail with EIO", _with_shim("agent", _reads_fail), 150, 0, _SHIM),
    Row("eio-receiver", "fsync of the database fails with EIO", _with_shim("receiver", _fsync_fails), 150, 0, _SHIM),
    Row("enospc-agent", "writes of the outbox find no space, some in their middle", _with_shim("agent", _no_space),
        300, 8, _SHIM),
    Row("enospc-receiver", "writes of the database find no space", _with_shim("receiver", _no_space), 150, 0, _SHIM),
    Row("disk-full-agent", "the gateway's file system is full", disk_full_agent, 12, 0, _POWER),
    Row("store-full", "the receiver's file system is full", disk_full_receiver, 12, 0, _POWER, exits=True),
    Row("store-slow", "each fsync of the database takes up to 1.5 s longer", _with_shim("receiver", _slow), 100, 0,
        _SHIM),
)  # fmt: skip
