"""The quick rows run together once; their table stands at the end of pytest's output, with what could not be done."""

from __future__ import annotations

import pytest

from tests.faults import report
from tests.faults.stage import Outcome

OUTCOMES = pytest.StashKey[list[Outcome]]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "faults: a row of the fault suite")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    outcomes = config.stash.get(OUTCOMES, None)
    if not outcomes:
        return
    terminalreporter.section("faults")
    terminalreporter.write_line(report.table(outcomes))
    for outcome in outcomes:
        if outcome.skipped:
            terminalreporter.write_line(f"NOT DONE on this machine: {outcome.row}: {outcome.skipped}", yellow=True)
