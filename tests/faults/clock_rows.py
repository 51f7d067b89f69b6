"""Clocks that are wrong by years, or step while the programs run."""

from __future__ import annotations

import asyncio

from tests.faults.clocks import YEAR_S, FalseClock, no_false_clock
from tests.faults.line import Setup
from tests.faults.oracle import Verdict
from tests.faults.stage import Row, Stage

_STEPS_S = (2 * YEAR_S, -2 * YEAR_S, 3600.0, -3600.0, 5.0, -5.0, 0.0)


async def clocks(stage: Stage) -> Verdict:
    """The agent's clock, the receiver's or both step by up to two years, in the middle of work or between two lives."""
    agent_clock, receiver_clock = FalseClock(stage.folder / "clock-agent"), FalseClock(stage.folder / "clock-receiver")
    setup = Setup(agent_env=agent_clock.environ, receiver_env=receiver_clock.environ)
    async with stage.line(setup) as line:
        for _ in range(stage.count):
            for clock in line.rng.choice([[agent_clock], [receiver_clock], [agent_clock, receiver_clock]]):
                clock.set(line.rng.choice(_STEPS_S))
            match line.rng.randrange(3):
                case 0:
                    await line.kill_agent(line.gateway)
                    line.gateway.service.start()
                case 1:
                    await asyncio.to_thread(line.receiver.kill)
                    line.receiver.start()
            line.injections += 1
            await line.pause(1.0, 2.0)  # a program looks at its false clock's file once a second
            await line.recovers("after a clock was set")
        return await stage.verdict(line)


ROWS = (Row("clock-steps", "clocks two years wrong, and stepping", clocks, 40, 2, (no_false_clock,)),)
