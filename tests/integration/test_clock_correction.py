"""A gateway boots in the year 2000 and its clock is set right later: real processes, from the device to the database.

The oracle is the device, which lives in this process and notes when it gave which answer: in the end each answer must
stand in the database once, with that time. The gateway's clock and what is said of it are files of the test's.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.support.brokers import Broker, nats
from tests.support.programs import CountingDevice, Program, counter_settings, programs, until, write_yaml

FALSE_TIME = Path(__file__).parents[1] / "support" / "false_time"
YEAR_2000_S = 946_684_800
APART_S = 1.0


class Clock:
    """The gateway's."""

    def __init__(self, folder: Path) -> None:
        self._ahead, self.vouched = folder / "ahead", folder / "synchronised"
        self.set_to(YEAR_2000_S)
        self.environ = {"PYTHONPATH": str(FALSE_TIME), "FALSE_TIME": str(self._ahead)}

    def set_to(self, now_s: float | None) -> None:
        """To this moment; None: the right one."""
        ahead_ns = 0 if now_s is None else int((now_s - time.time()) * 1e9)
        self._ahead.write_text(f"{ahead_ns:+032d}")

    def synchronise(self) -> None:
        self.set_to(None)
        self.vouched.touch()


class Line:
    """One device, agent, broker, receiver."""

    def __init__(self, folder: Path, broker: Broker) -> None:
        self.clock, self.device, self.database = Clock(folder), CountingDevice(), folder / "cloud.db"
        where = {"host": broker.host, "port": broker.port}
        store = {"path": str(self.database)}
        receiver = write_yaml(folder / "cloud.yaml", {"broker": where, "store": store, "http": {"port": 0}})
        self.receiver = Program("cloud.cli", receiver)
        self.agent = Program("agent.cli", folder / "agent.yaml", self.clock.environ)
        self._settings = {
            "gateway": {"thing": "gw-1", "tenant": "acme", "province": "north", "plant": "mill"},
            "broker": where,
            "data_dir": str(folder / "agent"),
            "batch": {"interval_s": 0.2},
            "clock": {"synchronised": str(self.clock.vouched)},
            "shutdown_drain_s": 40,
        }

    async def start(self) -> None:
        await self.device.start()
        device = counter_settings(self.device, "plc-1", "press-1", 0.1) | {"timeout_s": 20.0}
        write_yaml(self.agent.config, self._settings | {"devices": [device]})
        self.asked("cloud.cli", "tenant", "add", "acme")
        self.asked("cloud.cli", "plant", "add", "acme", "north", "mill")
        self.receiver.start()
        self.agent.start()

    def asked(self, module: str, *words: str) -> Any:
        of = self.agent if module == "agent.cli" else self.receiver
        command = [sys.executable, "-m", module, *words, "--json", "--config", str(of.config)]
        environ = {"PATH": ""} | of.environ
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
        return json.loads(done.stdout) if done.stdout.strip() else None

    def rows(self) -> list[tuple[int, float]]:
        """(count, time in seconds) of every reading in the database."""
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=10)) as connection:
            return connection.execute("SELECT value, time / 1e6 FROM readings WHERE quality = 0").fetchall()

    async def stored(self, more: int, what: str) -> None:
        wanted = len(self.rows()) + more
        await until(f"readings are stored {what}; see {self.agent.log}", lambda: len(self.rows()) >= wanted)

    async def read(self, more: int) -> None:
        wanted = len(self.device.served) + more
        await until("the device is read", lambda: len(self.device.served) >= wanted)

    def counts(self) -> tuple[int, int]:
        """(uncertain, corrected) batches."""
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=10)) as connection:
            batches = connection.execute("SELECT sum(batches - corrected), sum(corrected) FROM clock_spans").fetchone()
        return batches[0] or 0, batches[1] or 0

    def check(self) -> None:
        """Each answer once, at its own time; the one in hand at the kill may be missing."""
        found = dict(self.rows())
        assert len(found) == len(self.rows()), "a reading is stored twice"
        true = dict(zip(self.device.served, self.device.served_at_s, strict=True))
        assert len(true.keys() - found.keys()) <= 4, "the batch in hand when the agent was killed"
        wrong = {count: at_s - true[count] for count, at_s in found.items() if abs(at_s - true[count]) > APART_S}
        assert not wrong


async def test_what_was_stamped_in_the_year_2000_has_the_true_time_in_the_end(tmp_path: Path) -> None:
    async with nats(tmp_path / "broker") as broker:
        line = Line(tmp_path, broker)
        async with programs(line.agent, line.receiver, devices=[line.device]):
            await line.start()
            await until("the database is there", line.database.exists)
            await line.stored(10, "with the times as stamped")
            assert all(at_s < YEAR_2000_S + 3600 for _, at_s in line.rows())
            said = {one["subject"]: one["text"] for one in line.asked("agent.cli", "status")["findings"]}
            assert "not synchronised" in said["clock"] and "corrected once it is" in said["clock"]
            [gateway] = line.asked("cloud.cli", "gateway", "list")["gateways"]
            assert gateway["clock_synchronised"] is False and gateway["uncertain"] >= 3

            line.agent.kill()
            line.agent.start()  # in the same boot: the span goes on
            await line.stored(5, "after the agent was killed")
            line.receiver.kill()
            await line.read(15)  # what waits on disk is marked, too
            line.clock.synchronise()
            await line.read(15)
            line.receiver.start()
            await until("all is corrected", lambda: line.counts()[0] == 0)
            assert line.counts()[1] > 5

            line.clock.vouched.unlink()
            line.clock.set_to(time.time() - 7200)  # by hand, in the middle
            await line.stored(5, "after the clock was set back")
            await until("that is marked", lambda: line.counts()[0] > 0)
            line.clock.synchronise()
            await until("all is corrected again", lambda: line.counts()[0] == 0)
            assert await asyncio.to_thread(line.agent.stop) == 0
            assert await asyncio.to_thread(line.receiver.stop) == 0
        line.check()
