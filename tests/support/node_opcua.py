"""node-opcua's server, for tests: an OPC UA server that is not written in Python. tests/support/node-opcua has it."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.brokers import free_port

HERE = Path(__file__).parent
INSTALLED = HERE.parents[1] / ".bench" / "node-opcua"  # ignored by git
INSTALL_S = 120.0


class Missing(Exception):
    """It cannot be installed here; a sentence that says why."""


class NodeOpcua:
    """The server in its own process: from `start` to `stop`, at the same port again after another `start`."""

    def __init__(self, home: str, folder: str) -> None:
        self._home = home
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"opc.tcp://127.0.0.1:{self._port}/press"

    def start(self) -> None:
        """Until it listens."""
        self._process = subprocess.Popen(
            ["node", str(HERE / "node-opcua" / "server.cjs"), self._home, str(self._port), self._folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._until("listening")

    def set(self, name: str, value: float) -> None:
        """A new value of a Double."""
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(json.dumps({"name": name, "value": value}) + "\n")
        self._process.stdin.flush()
        self._until("set")

    def _until(self, word: str) -> None:
        assert self._process is not None and self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            if line.strip() == word:
                return
            said.append(line)
        raise AssertionError(f"node-opcua ended: {''.join(said)}")

    def stop(self) -> None:
        """As if its computer were switched off."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@contextmanager
def node_opcua() -> Iterator[NodeOpcua]:
    """A running server. Raises Missing."""
    found = subprocess.run(
        ["bash", str(HERE / "ensure-node-opcua.sh"), str(INSTALLED)],
        capture_output=True,
        text=True,
        timeout=INSTALL_S,
        check=False,
    )
    if found.returncode:
        raise Missing(found.stderr.strip().splitlines()[-1] if found.stderr.strip() else "it cannot be installed")
    with tempfile.TemporaryDirectory() as folder:
        server = NodeOpcua(found.stdout.strip(), folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
