"""The whole of Holdfast on one machine: simulated plant, embedded broker, agent, receiver, operators' page.

    python -m demo [--seconds S] [--page-port P] [--directory D]

Each part is the real program in a process of its own. Without --seconds it runs until Ctrl-C. At the end the agent
stops polling and drains; the last line is one JSON object that sets what the drivers read beside what the database
holds. Exit status 0 only if both are equal, nothing is lost and nothing is stored twice.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from demo import broker
from demo.plant import Ports, devices

TENANT, PROVINCE, PLANT, THING = "demo", "south", "plant-1", "gateway-1"
START_S = 30.0
STOP_S = 40.0
PAGE_PORT = 8480
AGENT_PAGE_PORT = 8470
_PR_SET_PDEATHSIG = 1


class DemoFailed(Exception):
    """The message is one sentence."""


@dataclass
class Processes:
    """What runs, by name, in the order of start. A child's output goes to a log file of its own."""

    directory: Path
    running: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    def start(self, name: str, command: Sequence[str], *, read_stdout: bool = False) -> subprocess.Popen[str]:
        with (self.directory / f"{name}.log").open("w") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if read_stdout else log,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C is for us; we stop them in the right order
                preexec_fn=_die_with_parent,
            )
        self.running[name] = process
        return process

    def stop(self, name: str) -> None:
        """Ask it to end, wait, insist."""
        process = self.running.pop(name, None)
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise DemoFailed(f"{name} did not stop within {STOP_S:.0f} s; see {self.log(name)}") from None
        finally:
            if process.stdout is not None:
                process.stdout.close()

    def check(self) -> None:
        for name, process in self.running.items():
            if process.poll() is not None:
                last = self.log(name).read_text().strip().splitlines()[-1:]
                raise DemoFailed(
                    f"{name} ended by itself: {' '.join(last) or 'it said nothing'} (see {self.log(name)})"
                )

    def log(self, name: str) -> Path:
        return self.directory / f"{name}.log"


def _die_with_parent() -> None:
    """Linux: if the demo itself is killed, its parts end, too."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Demo:
    """One run."""

    def __init__(self, directory: Path, page_port: int, agent_page_port: int) -> None:
        self.directory = directory
        self.page_port = page_port
        self.agent_page_port = agent_page_port
        self.processes = Processes(directory)
        self.mqtt_port = broker.free_port()
        self.agent_yaml = directory / "agent.yaml"
        self.cloud_yaml = directory / "cloud.yaml"
        self.database = directory / "cloud.db"

    def start(self) -> None:
        self.processes.start("broker", broker.command(self.directory / "broker", self.mqtt_port, broker.free_port()))
        ports = self._start_plant()
        self._write_configurations(ports)
        _wait_for_port(self.mqtt_port, "the broker", self.processes)
        self._cloud("tenant", "add", TENANT)
        self._cloud("plant", "add", TENANT, PROVINCE, PLANT)
        self._cloud("gateway", "add", f"{TENANT}/{PROVINCE}/{PLANT}", THING)
        self.processes.start("receiver", _python("cloud.cli", "run", "--config", str(self.cloud_yaml)))
        _wait_for_port(self.page_port, "the operators' page", self.processes)
        self.processes.start("agent", _python("agent.cli", "run", "--config", str(self.agent_yaml)))

    def _start_plant(self) -> Ports:
        command = _python("demo.plant", "--modbus-1", "0", "--modbus-2", "0", "--opcua", "0")
        plant = self.processes.start("plant", command, read_stdout=True)
        line = plant.stdout.readline() if plant.stdout is not None else ""
        if not line:
            self.processes.check()
            raise DemoFailed(f"the simulated plant did not start; see {self.processes.log('plant')}")
        ready = json.loads(line)
        return Ports(ready["modbus_1"], ready["modbus_2"], ready["opcua"])

    def _write_configurations(self, ports: Ports) -> None:
        where = {"host": broker.HOST, "port": self.mqtt_port}
        agent = {
            "gateway": {"thing": THING, "tenant": TENANT, "province": PROVINCE, "plant": PLANT},
            "broker": where,
            "data_dir": str(self.directory / "agent"),
            "clock": {"synchronised": "always"},  # of one machine there is only one clock
            "shutdown_drain_s": 30.0,
            "page": {"host": broker.HOST, "port": self.agent_page_port},
            "devices": [_device(device) for device in devices(ports)],
        }
        cloud = {
            "broker": where,
            "store": {"type": "sqlite", "path": str(self.database)},
            "http": {"host": broker.HOST, "port": self.page_port},
        }
        self.agent_yaml.write_text(yaml.safe_dump(agent, sort_keys=False, allow_unicode=True))
        self.cloud_yaml.write_text(yaml.safe_dump(cloud, sort_keys=False))

    def _cloud(self, *words: str) -> str:
        command = _python("cloud.cli", *words, "--config", str(self.cloud_yaml))
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise DemoFailed(f"`holdfast-cloud {' '.join(words)}` failed: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    # --- while it runs ---

    def run(self, seconds: float | None) -> None:
        """Show one live line until the time is over or Ctrl-C."""
        end_s = None if seconds is None else time.monotonic() + seconds
        before, width = self._stored(), 0
        while end_s is None or time.monotonic() < end_s:
            time.sleep(1.0 if end_s is None else max(0.0, min(1.0, end_s - time.monotonic())))
            self.processes.check()
            stored = self._stored()
            line = f"stored {stored:,} readings ({stored - before:,}/s) · {self._agent_line()}"
            before = stored
            if sys.stdout.isatty():
                print("\r" + line.ljust(width), end="", flush=True)
                width = len(line)
            else:
                print(line, flush=True)
        if width:
            print()

    def _stored(self) -> int:
        """Readings ever stored; their rows are numbered, so this costs one look."""
        return int(self._sql("SELECT coalesce(max(rowid), 0) FROM readings")[0])

    def _agent_line(self) -> str:
        status = self._agent_status()
        if status is None:
            return "the agent is starting"
        said = status["status"]
        buffer = said["health"]["buffer"]
        links = [device["state"] for device in said["devices"].values()]
        devices_ok = sum(state in ("ok", "bad") for state in links)
        waiting = f"{buffer['queuedMessages']} batches in the outbox"
        return f"{devices_ok} of {len(links)} devices answer · {waiting} · {status['link']}"

    def _agent_status(self) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads((self.directory / "agent" / "status.json").read_text())
        except FileNotFoundError:
            return None
        return found

    def _sql(self, query: str) -> Sequence[Any]:
        connection = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=10)
        try:
            row: Sequence[Any] = connection.execute(query).fetchone()
        finally:
            connection.close()
        return row

    # --- the end ---

    def finish(self) -> dict[str, int]:
        """Stop polling, drain, stop everything, and count on both sides."""
        online = sum(gateway["presence"] == "online" for gateway in self._gateways())
        self.processes.stop("agent")
        self.processes.stop("receiver")
        self.processes.stop("broker")
        self.processes.stop("plant")
        status = self._agent_status()
        if status is None:
            raise DemoFailed(f"the agent left no status behind; see {self.processes.log('agent')}")
        read = sum(device["readings"] for device in status["status"]["devices"].values())
        stored, distinct = self._sql(
            "SELECT count(*), (SELECT count(*) FROM (SELECT DISTINCT series_id, time FROM readings)) FROM readings"
        )
        return {
            "readings_read": read,
            "readings_stored": stored,
            "duplicates": stored - distinct,
            "lost": max(0, read - distinct),
            "gateways_online": online,
        }

    def _gateways(self) -> list[dict[str, Any]]:
        found = json.loads(self._cloud("gateway", "list", "--json"))
        gateways: list[dict[str, Any]] = found["gateways"] if isinstance(found, dict) else found
        return gateways

    def stop_all(self) -> None:
        for name in ("agent", "receiver", "broker", "plant"):
            self.processes.stop(name)


def _device(device: Any) -> dict[str, Any]:
    groups = [
        {"name": group["name"], "period_s": group["period_s"], **group["options"], "tags": group["tags"]}
        for group in device["groups"]
    ]
    head = {key: device[key] for key in ("name", "machine", "protocol")}
    return {**head, **device["settings"], "groups": groups}


def _python(module: str, *words: str) -> list[str]:
    return [sys.executable, "-m", module, *words]


def _wait_for_port(port: int, what: str, processes: Processes) -> None:
    end_s = time.monotonic() + START_S
    while time.monotonic() < end_s:
        processes.check()
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex((broker.HOST, port)) == 0:
                return
        time.sleep(0.05)
    raise DemoFailed(f"{what} did not answer on port {port} within {START_S:.0f} s; see {processes.directory}/*.log")


def _free_page_port(wanted: int) -> int:
    """The port asked for; any free one for 0, or where somebody has it."""
    if wanted == 0:
        return broker.free_port()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((broker.HOST, wanted))
        except OSError:
            return broker.free_port()
    return wanted


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=None, help="stop after this long; default: at Ctrl-C")
    parser.add_argument("--page-port", type=int, default=PAGE_PORT, help="port of the operators' page")
    parser.add_argument("--directory", type=Path, default=Path("demo-data"), help="where everything is kept; made anew")
    options = parser.parse_args()
    directory: Path = options.directory.resolve()
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    os.environ.pop("NOTIFY_SOCKET", None)
    agent_page_port = _free_page_port(AGENT_PAGE_PORT if options.page_port else 0)
    demo = Demo(directory, _free_page_port(options.page_port), agent_page_port)
    try:
        return _run(demo, options.seconds)
    except (DemoFailed, broker.NoBroker) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 69
    finally:
        demo.stop_all()


def _run(demo: Demo, seconds: float | None) -> int:
    try:
        print("Starting a simulated plant, a broker, the agent and the receiver …", flush=True)
        demo.start()
        print(
            f"  plant      two Modbus TCP PLCs and an OPC UA server, replaying a solar plant\n"
            f"  broker     NATS, MQTT on {broker.HOST}:{demo.mqtt_port}\n"
            f"  agent      holdfast status --config {_short(demo.agent_yaml)}\n"
            f"             http://{broker.HOST}:{demo.agent_page_port}/   its own page\n"
            f"  receiver   holdfast-cloud gateway list --config {_short(demo.cloud_yaml)}\n"
            f"  page       http://{broker.HOST}:{demo.page_port}/   ← open this\n"
            + ("Ctrl-C stops everything." if seconds is None else f"Runs for {seconds:g} s."),
            flush=True,
        )
        demo.run(seconds)
    except KeyboardInterrupt:
        print()
    print("Stopping: the agent drains what it has …", flush=True)
    counts = demo.finish()
    print(json.dumps(counts), flush=True)
    good = counts["readings_read"] == counts["readings_stored"] and not counts["lost"] and not counts["duplicates"]
    return 0 if good and counts["readings_read"] else 1


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


if __name__ == "__main__":
    sys.exit(main())
