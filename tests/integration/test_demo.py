"""The one-command demo, as a person runs it: it starts everything, Ctrl-C stops everything, and the counts agree."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path


def test_ctrl_c_drains_stops_everything_and_the_counts_agree(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    command = [sys.executable, "-m", "demo", "--directory", str(directory), "--page-port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if line.startswith("stored ") and "3 of 3 devices answer" in line and not line.startswith("stored 0 "):
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=90)
    assert process.returncode == 0, (said, out, err)
    counts = json.loads(out.splitlines()[-1])
    assert counts["readings_read"] == counts["readings_stored"] > 0
    assert (counts["duplicates"], counts["lost"], counts["gateways_online"]) == (0, 0, 1)
    assert any("http://127.0.0.1:" in line for line in said), "it says which address to open"
    assert not left_behind(directory)


def left_behind(directory: Path) -> list[str]:
    """Command lines of processes that still run with this directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:  # it has ended meanwhile
                continue
            if str(directory) in line:
                found.append(line)
    return found
