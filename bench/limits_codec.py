"""What compressors of numbers alone need for the same values: pcodec, in an environment of its own.

They get the values of each message and nothing else: no tag names, types, times, quality or sequence numbers. So they
are no peers of a message, but a lower bound for what a message's values may cost.

As a program (with the environment's Python, which has pcodec and numpy and nothing of ours): standard input is one line
of JSON, `[[[letter, count], …], …]` per message and column with struct's letters, then all values little-endian;
standard output is JSON: bytes per arrangement.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PACKAGES = ("pcodec==1.1.0", "numpy==2.4.6")
HOME = Path(__file__).parent.parent / ".bench" / "codec"
PYTHON = HOME / "bin" / "python"
TIMEOUT_S = 300.0


class Absent(Exception):
    """The environment is not there or does not work; the text says so in one sentence."""


def install() -> None:
    """The environment, from the package registry. Raises Absent."""
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES]
    for command in ([sys.executable, "-m", "venv", str(HOME)], pip):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Absent(f"pcodec cannot be installed from PyPI: {done.stderr.strip()[-300:]}")


def pcodec(columns: Sequence[Sequence[tuple[str, bytes, int]]], python: Path = PYTHON) -> dict[str, int]:
    """Bytes for all messages, by arrangement. `columns`: per message and column struct's letter, values, their number.

    Raises Absent.
    """
    if not python.exists():
        raise Absent("pcodec is not installed; a run without --quick installs it")
    head = json.dumps([[(letter, count) for letter, _, count in message] for message in columns])
    body = b"".join(raw for message in columns for _, raw, _ in message)
    done = subprocess.run(
        [str(python), "-I", str(Path(__file__))],
        input=head.encode() + b"\n" + body,
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise Absent(f"pcodec does not work: {done.stderr.decode(errors='replace').strip()[-200:]}")
    found: dict[str, int] = json.loads(done.stdout)
    return found


def _main() -> None:
    # Not there where the rest of this project is checked and run, so they are modules without types.
    np: Any = importlib.import_module("numpy")
    library: Any = importlib.import_module("pcodec")
    standalone, wrapped = library.standalone, library.wrapped

    kinds = {"d": "<f8", "f": "<f4", "q": "<i8", "Q": "<u8", "?": "u1"}
    config = library.ChunkConfig()
    sizes = {"a file per column": 0, "a page per column": 0, "a file per message": 0}
    for message in json.loads(sys.stdin.buffer.readline()):
        columns = []
        for letter, count in message:
            kind = np.dtype(kinds[letter])
            column = np.frombuffer(sys.stdin.buffer.read(count * kind.itemsize), kind)
            columns.append(column.astype("<u2") if letter == "?" else column)  # 16 bits: the least that pcodec takes
        for column in columns:
            sizes["a file per column"] += len(standalone.simple_compress(column, config))
            chunk = wrapped.FileCompressor().chunk_compressor(column, config)
            pages = range(len(chunk.n_per_page()))
            sizes["a page per column"] += len(chunk.write_meta()) + sum(len(chunk.write_page(at)) for at in pages)
        for kind in sorted({column.dtype.str for column in columns}):
            whole = np.concatenate([column for column in columns if column.dtype.str == kind])
            sizes["a file per message"] += len(standalone.simple_compress(whole, config))
    json.dump(sizes, sys.stdout)


if __name__ == "__main__":
    _main()
