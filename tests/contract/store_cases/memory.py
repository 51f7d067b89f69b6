"""The store in plain Python."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cloud.store.memory import MemoryStore
from tests.contract.store_cases import Reading, StoreCase


@contextmanager
def case(directory: Path, **options: Any) -> Iterator[StoreCase]:
    store = MemoryStore(**options)

    def readings() -> Counter[Reading]:
        return Counter(
            (topic.machine, tag, kind, at, value, quality) for topic, tag, kind, at, value, quality in store.readings
        )

    yield StoreCase(store, readings)
    store.close()
