"""Mosquitto for a run: private, on a free port of 127.0.0.1, unlimited queues, so that it is never what loses."""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench.processes import HOST, Process, free_ports, wait_until
from tests.support.brokers import mosquitto_program


class Broker:
    """`acl`: lines of an access file, where the default (anybody may do anything) does not do."""

    def __init__(self, directory: Path, acl: Sequence[str] = ()) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.port = free_ports(1)[0]
        self._directory = directory
        lines = [
            f"listener {self.port} {HOST}",
            "allow_anonymous true",
            "max_queued_messages 0",
            "max_inflight_messages 100",
            "persistence false",
            "set_tcp_nodelay true",
        ]
        if os.geteuid() == 0:
            lines.append(f"user {getpass.getuser()}")  # else it becomes `mosquitto`, who may not read the directory
        if acl:
            (directory / "acl").write_text("\n".join(acl) + "\n")
            (directory / "acl").chmod(0o600)
            lines.append(f"acl_file {directory / 'acl'}")
        (directory / "mosquitto.conf").write_text("\n".join(lines) + "\n")

    def start(self) -> Process:
        """The same port at every start; what an earlier life held is gone."""
        command = [mosquitto_program(), "-c", str(self._directory / "mosquitto.conf")]
        process = Process("mosquitto", command, self._directory / "mosquitto.log")
        wait_until(self._answers, "the broker's port", 10.0, process)
        return process

    def _answers(self) -> bool:
        try:
            socket.create_connection((HOST, self.port), 1.0).close()
        except OSError:
            return False
        return True


def version() -> str:
    """As `mosquitto -h` tells it."""
    said = subprocess.run([mosquitto_program(), "-h"], capture_output=True, text=True, check=False).stdout
    return said.split("\n", 1)[0].removeprefix("mosquitto version ").strip()
