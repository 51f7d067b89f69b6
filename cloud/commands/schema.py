"""`holdfast-cloud schema`: what the configuration may contain, for editors and programs."""

from __future__ import annotations

import sys


def schema() -> None:
    """Print the configuration's JSON Schema, for editors."""
    from cloud.schema import schema_text

    sys.stdout.write(schema_text())
