"""The tables of docs/performance.md, from the figures of a run."""

from __future__ import annotations

from typing import Any

import pytest

from bench.document import DocumentError, written
from bench.profile import by_module
from bench.table import Row

ROWS = [
    Row(
        "Steady load, whole", "samples", "samples/CPU-s", 250_000.0, {"Node-RED": 50_000.0}, ("bare", 1e6), (">=", 2e5)
    ),
    Row("Steady load, whole", "RSS", "MB", 53.3, {"Node-RED": None}, aim=("<=", 50), note="a | b", better="lower"),
    Row("What it takes", "start", "s", None, aim=("<=", 0.6), note="it did not start", better="lower"),
]
DOCUMENT = """# Performance
<!-- bench: run -->
earlier words
<!-- end -->
Words.
<!-- bench: Steady load -->
<!-- end -->
<!-- bench: Codec -->
kept
<!-- end -->
<!-- bench: unmet -->
<!-- end -->
"""


def found(rows: list[Row]) -> dict[str, Any]:
    return {
        "command": "python -m bench",
        "date": "2026-11-28",
        "machine": {"cpu": "2 × x", "memory": "8 GiB", "load": "0.1 0.1 0.1", "kernel": "6.1"},
        "versions": {"mosquitto": "2.0.11"},
        "seconds": 600,
        "rows": [row.as_json() for row in rows],
    }


def test_the_words_stay_and_the_tables_are_those_of_the_run() -> None:
    document = written(DOCUMENT, found(ROWS))
    assert "earlier words" not in document
    assert "`python -m bench` on 2026-11-28: 10 minutes on 2 × x, 8 GiB" in document
    assert "Words.\n" in document
    assert "| what | unit | Holdfast | Node-RED | limit (part reached) | aim | met |" in document
    assert (
        "| samples | samples/CPU-s | **250,000** | 50,000 (×5.00) | bare 1,000,000 (25 %) | ≥ 200,000 | yes |"
        in document
    )
    assert "| RSS | MB | **53.3** | – |  | ≤ 50.0 | **no** |\n\n- RSS: a | b." in document
    assert "kept" in document, "a section that was not measured"
    assert "Of 2 aims this run met 1." in document
    assert "| RSS | MB | 53.3 | ≤ 50.0 |" in document
    assert "Without a figure: start (it did not start)." in document
    assert written(document, found(ROWS)) == document


def test_a_place_that_two_sections_fit_is_told() -> None:
    rows = [Row(name, "x", "s", 1.0) for name in ("Codec, one", "Codec, two")]
    with pytest.raises(DocumentError, match="more than one section"):
        written(DOCUMENT, found(rows))


def test_a_profile_counts_the_innermost_module_of_ours() -> None:
    stacks = (
        "run (asyncio/runners.py:190);append (agent/outbox/disk.py:282);execute (diskcache/core.py:70) 5\n"
        "run (asyncio/runners.py:190);append (agent/outbox/disk.py:290) 2\n"
        "main (protocols/program/tasks.py:9);run (asyncio/runners.py:190);select (selectors.py:468) 3\n"
        "_worker (concurrent/futures/thread.py:81) 90\n"
        "run (agent/commands/run.py:9);_run_once (asyncio/base_events.py:1900) 1\n"
    )
    assert by_module(stacks) == {
        "agent/outbox/disk.py": 7,
        "sleeping and waking (epoll)": 3,
        "the event loop itself (asyncio)": 1,
    }
