"""What goes wrong, one function each. Each chooses its own duration; where something ends, it ends by itself."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable

from agent.outbox.contract import Outbox
from protocols.uplink.link import Outcome
from tests.simulation.disk import Disk
from tests.simulation.world import CLOUD, GATEWAY, World

TELEMETRY, CONFIRM = "factory/#", "ops/#"
YEARS_S = 2 * 365 * 86_400


async def agent_killed(world: World) -> None:
    await world.kill_agent()
    await world.pause(0.1, 15)
    await world.start_agent()


async def receiver_killed(world: World) -> None:
    await world.kill_receiver()
    await world.pause(0.1, 40)
    await world.start_receiver()


async def agent_cut(world: World) -> None:
    world.broker.cut(GATEWAY.thing)


async def receiver_cut(world: World) -> None:
    world.broker.cut(CLOUD)


async def broker_restarted(world: World) -> None:
    world.broker.stop()
    await world.pause(0.1, 40)
    world.broker.start()


async def broker_wiped(world: World) -> None:
    world.broker.wipe()


async def broker_silent(world: World) -> None:
    """It answers no publish; what it is given goes on, or nowhere."""
    world.broker.hold(stored=world.chance.random() < 0.5)
    await world.pause(0.1, 10)
    if world.chance.random() < 0.5:
        world.broker.cut(GATEWAY.thing)
    world.broker.release()


async def publish_refused(world: World) -> None:
    pattern = world.chance.choice((TELEMETRY, CONFIRM))
    world.broker.answer(pattern, world.chance.choice((Outcome.DENIED, Outcome.QUOTA, Outcome.NO_SUBSCRIBERS)))
    await world.pause(0.1, 20)
    world.broker.answer(pattern, None)


async def store_away(world: World) -> None:
    world.store.away = True
    await world.pause(0.1, 30)
    world.store.away = False


async def disk_full(world: World) -> None:
    world.disk.full = True
    await world.pause(0.1, 20)
    world.disk.full = False


async def disk_failing(world: World) -> None:
    """Some calls fail, reads too."""
    world.disk.failing = world.chance.choice((0.05, 0.3, 1.0))
    await world.pause(0.1, 20)
    world.disk.failing = 0.0


async def store_backed_up(world: World) -> None:
    world.store_backups.append(copy.deepcopy(world.store))


async def store_restored(world: World) -> None:
    """Yesterday's backup of the database."""
    if world.store_backups:
        away = world.store.away
        await world.kill_receiver()
        world.store = world.chance.choice(world.store_backups)
        world.store_backups = [copy.deepcopy(world.store)]
        world.store.away = away
        world.store_was_restored()
        world.say(f"  to {world.ledger()}")
        await world.pause(0.1, 10)
        await world.start_receiver()


async def disk_backed_up(world: World) -> None:
    world.disk_backups.append(world.disk.backup())


async def disk_restored(world: World) -> None:
    """A backup of the outbox, which it notices."""
    if world.disk_backups:
        await world.kill_agent()
        _put_back(world)
        world.copied = True
        await world.pause(0.1, 5)
        await world.start_agent()


async def machine_set_back(world: World) -> None:
    """To a snapshot of the whole machine, which it cannot notice, once or more often before it hears the receiver.

    What it sent of the future that is lost may still stand in the broker's queue.
    """
    while world.disk_backups:
        await world.kill_agent()
        _put_back(world)
        world.boots += 1
        await world.start_agent()
        await world.pause(0.1, 5)
        if world.chance.random() < 0.5:
            return


async def machine_booted(world: World) -> None:
    """After a power cut."""
    await world.kill_agent()
    await world.pause(1, 15)
    world.boots += 1
    await world.start_agent()


def _put_back(world: World) -> None:
    before, full = world.disk, world.disk.full
    world.disk = world.chance.choice(world.disk_backups).backup()
    world.disk.full = full
    world.say(f"  of {world.lanes()}")
    world.disk_was_replaced(before)


async def disk_deleted(world: World) -> None:
    """A new disk."""
    await world.kill_agent()
    before, world.disk = world.disk, Disk(full=world.disk.full)
    world.disk_was_replaced(before)
    world.disk_backups.clear()
    await world.start_agent()


async def database_lost(world: World) -> None:
    """Of the outbox: damage has taken all of it, and left what lies beside it."""
    await world.kill_agent()
    before, world.disk = world.disk, world.disk.without_database()
    world.disk.full = before.full
    world.database_was_lost(before)
    await world.start_agent()


async def clock_steps(world: World) -> None:
    world.clock.skew_s = world.chance.choice((0.0, 3600.0, -3600.0, YEARS_S, -YEARS_S))


async def quiet(world: World) -> None:
    """Nothing, for long."""
    await world.pause(20, 100)


async def tended(world: World) -> None:
    """The outbox is asked to tidy up just now."""
    if world.worker is not None:
        await world.worker.call(Outbox.tend, world.now_us())


Fault = Callable[[World], Awaitable[None]]
AGENT, RECEIVER, BROKER, STORE, DISK, NONE = "agent", "receiver", "broker", "store", "disk", ""
FAULTS: tuple[tuple[Fault, int, tuple[str, ...]], ...] = (
    (agent_killed, 6, (AGENT,)),
    (receiver_killed, 6, (RECEIVER,)),
    (agent_cut, 6, ()),
    (receiver_cut, 6, ()),
    (broker_restarted, 5, (BROKER,)),
    (broker_wiped, 3, ()),
    (broker_silent, 4, (BROKER,)),
    (publish_refused, 3, (BROKER,)),
    (store_away, 4, (STORE,)),
    (disk_full, 3, (DISK,)),
    (disk_failing, 3, (DISK, AGENT)),
    (store_backed_up, 2, ()),
    (store_restored, 2, (RECEIVER, STORE)),
    (disk_backed_up, 2, ()),
    (disk_restored, 1, (AGENT, DISK)),
    (machine_set_back, 2, (AGENT, DISK)),
    (machine_booted, 1, (AGENT,)),
    (disk_deleted, 1, (AGENT, DISK)),
    (database_lost, 1, (AGENT, DISK)),
    (clock_steps, 2, ()),
    (quiet, 1, (AGENT, RECEIVER, BROKER, STORE, DISK)),
    (tended, 1, (AGENT,)),
)
"""Fault, weight, and what it needs for itself: two faults of the same thing do not overlap, all others may."""

__all__ = ["FAULTS", "Fault"]
