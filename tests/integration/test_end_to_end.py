"""The main job on real processes: devices → agent → mosquitto → receiver → SQLite, each killed in mid-flow.

The oracle is independent of both programs: the device numbers its answers, and each number must stand in the database
once. Only a kill of the agent itself may cost what it had read and not yet stored on disk, which with `interval_s: 0`
is the answer in hand.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.brokers import Broker, mosquitto, nats
from tests.support.programs import CountingDevice, Program, counter_settings, programs, until, write_yaml

PERIOD_S = 0.05


def stored(database: Path, tag: str) -> list[int]:
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)
    try:
        rows = connection.execute(
            "SELECT value FROM readings JOIN series ON series.id = series_id WHERE tag = ? AND quality = 0", (tag,)
        ).fetchall()
    except sqlite3.OperationalError:  # not made yet
        return []
    finally:
        connection.close()
    return [value for (value,) in rows]


class Plant:
    """Two counting devices, both programs, one broker."""

    def __init__(self, tmp_path: Path, broker: Broker) -> None:
        self.broker = broker
        self.database = tmp_path / "cloud.db"
        self.devices = [CountingDevice(), CountingDevice()]
        self._tmp_path = tmp_path
        self.where = {"host": broker.host, "port": broker.port, "keep_alive_s": 2}
        self.receiver = Program(
            "cloud.cli",
            write_yaml(
                tmp_path / "cloud.yaml",
                {"broker": self.where, "store": {"path": str(self.database)}, "http": {"port": 0}},
            ),
        )
        self.agent = Program("agent.cli", tmp_path / "agent.yaml")

    async def start(self) -> None:
        for device in self.devices:
            await device.start()
        self.write_agent()
        for words in (("tenant", "add", "acme"), ("plant", "add", "acme", "north", "mill")):
            self.cloud(*words)
        self.receiver.start()
        self.agent.start()

    def write_agent(self) -> None:
        write_yaml(
            self.agent.config,
            {
                "gateway": {"thing": "gw-1", "tenant": "acme", "province": "north", "plant": "mill"},
                "broker": self.where,
                "data_dir": str(self._tmp_path / "agent"),
                "batch": {"interval_s": 0},
                "shutdown_drain_s": 40,
                "devices": [
                    # The devices live in this process, which sometimes waits for a command of ours.
                    counter_settings(device, f"plc-{at}", f"press-{at}", PERIOD_S) | {"timeout_s": 20.0}
                    for at, device in enumerate(self.devices)
                ],
            },
        )

    def cloud(self, *words: str) -> Any:
        command = [sys.executable, "-m", "cloud.cli", *words, "--json", "--config", str(self.receiver.config)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout) if done.stdout.strip() else None

    async def flows(self, what: str, more: int = 20) -> None:
        """Wait until so many more readings of each device are in the database."""
        wanted = [len(stored(self.database, f"plc-{at}.count")) + more for at in range(len(self.devices))]
        await until(
            f"readings flow {what}; see {self.agent.log} and {self.receiver.log}",
            lambda: all(len(stored(self.database, f"plc-{at}.count")) >= n for at, n in enumerate(wanted)),
        )

    def has_let_go(self) -> bool:
        """The newest number of each machine is far above what the outbox holds of both."""
        said = json.loads((self._tmp_path / "agent" / "status.json").read_text())["status"]
        held = said["health"]["buffer"]["queuedMessages"]
        return len(said["machines"]) == 2 and all(m["lastSeq"] > held for m in said["machines"].values())

    async def finish(self) -> None:
        """A planned end: stop polling, drain, stop the receiver, stop the devices."""
        assert await asyncio.to_thread(self.agent.stop) == 0
        assert await asyncio.to_thread(self.receiver.stop) == 0
        for device in self.devices:
            await device.stop()

    def check(self, lost_per_device_max: int = 0) -> None:
        for at, device in enumerate(self.devices):
            found = stored(self.database, f"plc-{at}.count")
            assert len(found) == len(set(found)), "a reading is stored twice"
            assert set(found) <= set(device.served), "a reading is stored that the device never gave"
            missing = sorted(set(device.served) - set(found))
            of = device.served[-1]
            assert len(missing) <= lost_per_device_max, f"plc-{at}: readings {missing[:20]} of {of} are missing"


async def test_nothing_is_lost_or_doubled_when_broker_receiver_and_agent_are_killed(tmp_path: Path) -> None:
    async with mosquitto(tmp_path / "broker", survives_kill=True) as broker:
        plant = Plant(tmp_path, broker)
        async with programs(plant.agent, plant.receiver, devices=plant.devices):
            await plant.start()
            await plant.flows("at first")

            await broker.kill()
            await asyncio.sleep(1)  # the agent goes on buffering
            await broker.start()
            await plant.flows("after the broker was killed")

            plant.receiver.kill()
            await asyncio.sleep(1)
            plant.receiver.start()
            await plant.flows("after the receiver was killed")

            plant.agent.kill()
            plant.agent.start()
            await plant.flows("after the agent was killed")

            plant.receiver.kill()
            await broker.kill()
            await asyncio.sleep(0.5)
            await broker.start()
            plant.receiver.start()
            await plant.flows("after both were killed")
            await plant.finish()
        plant.check(lost_per_device_max=1)  # the answer that the agent had in hand when it was killed


async def test_a_broker_that_forgets_everything_costs_nothing(tmp_path: Path) -> None:
    """Without persistence a killed broker loses sessions, queues and retained messages: the window is sent again."""
    async with mosquitto(tmp_path / "broker", persistence=False) as broker:
        plant = Plant(tmp_path, broker)
        async with programs(plant.agent, plant.receiver, devices=plant.devices):
            await plant.start()
            await plant.flows("at first")
            for _ in range(3):
                plant.receiver.kill()  # so that messages wait in the broker
                await asyncio.sleep(0.7)
                await broker.kill()
                await broker.start()
                plant.receiver.start()
                await plant.flows("after the broker forgot everything")
            await plant.finish()
        plant.check()


async def test_a_receiver_that_has_forgotten_everything_gets_it_again(tmp_path: Path) -> None:
    """Its database is new: what was confirmed to the old one is still kept by the gateway, and is sent again."""
    async with mosquitto(tmp_path / "broker") as broker:
        plant = Plant(tmp_path, broker)
        async with programs(plant.agent, plant.receiver, devices=plant.devices):
            await plant.start()
            await plant.flows("at first", more=40)
            await until("the agent has let go of confirmed batches of both machines", plant.has_let_go)
            assert await asyncio.to_thread(plant.receiver.stop) == 0
            plant.database = tmp_path / "new.db"
            write_yaml(
                plant.receiver.config,
                {"broker": plant.where, "store": {"path": str(plant.database)}, "http": {"port": 0}},
            )
            for words in (("tenant", "add", "acme"), ("plant", "add", "acme", "north", "mill")):
                plant.cloud(*words)
            plant.receiver.start()
            await plant.flows("into the new database", more=40)
            await until(
                "the ledger is whole again",
                lambda: all(
                    m["ledger"]["missing"] == 0 and m["ledger"]["dropped"] == 0
                    for m in plant.cloud("machine", "list")["machines"]
                ),
            )
            await plant.finish()
        plant.check()


async def test_the_same_over_nats(tmp_path: Path) -> None:
    """The demo's broker: MQTT 3.1.1, chosen by itself."""
    async with nats(tmp_path / "broker", mqtt='ack_wait: "2s"') as broker:
        plant = Plant(tmp_path, broker)
        async with programs(plant.agent, plant.receiver, devices=plant.devices):
            await plant.start()
            await plant.flows("at first")
            plant.receiver.kill()
            await asyncio.sleep(0.5)
            plant.receiver.start()
            await plant.flows("after the receiver was killed")
            await broker.kill()
            await broker.start()
            await plant.flows("after the broker was killed")
            await plant.finish()
        plant.check()


async def test_a_device_that_comes_and_goes_is_told_of_once_per_change(tmp_path: Path) -> None:
    async with mosquitto(tmp_path / "broker") as broker:
        plant = Plant(tmp_path, broker)
        async with programs(plant.agent, plant.receiver, devices=plant.devices):
            await plant.start()
            await plant.flows("at first")
            await plant.devices[1].stop()
            bad = "SELECT count(*) FROM readings WHERE quality != 0"

            def bad_readings() -> int:
                connection = sqlite3.connect(f"file:{plant.database}?mode=ro", uri=True)
                try:
                    return int(connection.execute(bad).fetchone()[0])
                finally:
                    connection.close()

            await until("the device's tag is bad", lambda: bad_readings() == 1)
            before = len(stored(plant.database, "plc-0.count"))
            await until("the other device goes on", lambda: len(stored(plant.database, "plc-0.count")) > before + 20)
            assert bad_readings() == 1
            [said] = [m for m in plant.cloud("gateway", "list")["gateways"] if m["thing"] == "gw-1"]
            assert said["presence"] == "online"
            await plant.devices[1].start()
            await plant.flows("once it is back", more=5)
            await plant.finish()
        plant.check()
