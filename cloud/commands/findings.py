"""What `check` and `status` found out, as lines with ✓, ✗ or !."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from protocols.program.findings import SIGNS, coloured, split
from protocols.program.findings import Finding as Finding
from protocols.program.findings import Mark as Mark
from protocols.program.terminal import clean, colourful


def say(findings: Sequence[Finding]) -> None:
    """Print them, the texts one below the other."""
    in_colour = colourful(sys.stdout)
    room = max((len(finding.subject) for finding in findings), default=0)
    for finding in findings:
        sign = coloured(finding.mark) if in_colour else SIGNS[finding.mark]
        sys.stdout.write(f"{sign} {finding.subject:{room}}  {clean(finding.text)}\n")
        if finding.fix:
            sys.stdout.write(f"{'':{room + 4}}→ {clean(finding.fix)}\n")


def failed(subject: str, sentence: str) -> Finding:
    """From an error's sentence: what failed before its last semicolon, what to do after it."""
    return Finding(Mark.BAD, subject, *split(sentence))
