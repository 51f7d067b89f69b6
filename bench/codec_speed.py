"""What encoding and decoding cost the CPU: a program of its own, so that it can be run with and without numpy.

    python -m bench.codec_speed [--without-numpy] [--seconds S]

Prints JSON: {case: {form: {"encode": ns, "decode": ns, "bytes": n}}}, CPU nanoseconds and bytes per sample. Before
anything is timed, every message is decoded and compared with what went in.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from bench.recordings import Recording
    from protocols.uplink.batch import Batch

SPEED_CASES = ("noisy float32", "float64, 1 decimal", "counters", "everything")
SPEED_TAGS, SPEED_SCANS, SPEED_MESSAGES = 1000, 60, 2
GROWTH_SCANS = ((100, 6), (100, 60), (100, 600))
GROWTH_TAGS = ((100, 60), (1000, 60), (10_000, 60))
REPEATS = 3
SEPARATOR = " | "

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Form:
    """One way to write a batch, and to read it again. `prepare` gives what `encode` starts from, untimed."""

    name: str
    prepare: Callable[[Batch], Any]
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Batch]


def _forms(recording: Recording) -> Iterator[Form]:
    from bench.wire import MsgpackColumns, Wire

    ours, columns = Wire(recording.device, recording.named()), MsgpackColumns()

    def prepare(batch: Batch) -> Any:
        return batch, [ours.scans(block) for block in batch.blocks]

    def encode(prepared: Any) -> bytes:
        batch, scans = prepared
        return ours.encode_scans(batch, scans)

    yield Form("ours", prepare, encode, ours.decode)
    yield Form("msgpack + zstd", lambda batch: batch, columns.encode, columns.decode)


def measure(form: Form, batches: Sequence[Batch], seconds: float) -> dict[str, float]:
    """CPU ns per sample, the median of repeats of `seconds` together; bytes per sample."""
    from bench.wire import same

    samples = sum(batch.readings() for batch in batches)
    prepared = [form.prepare(batch) for batch in batches]
    messages = [form.encode(one) for one in prepared]
    for batch, message in zip(batches, messages, strict=True):
        if not same(batch, form.decode(message)):
            raise AssertionError(f"{form.name}: a message did not come back as it was")
    each_s = seconds / REPEATS / 2
    return {
        "encode": _cpu_ns(form.encode, prepared, each_s) / samples,
        "decode": _cpu_ns(form.decode, messages, each_s) / samples,
        "bytes": sum(map(len, messages)) / samples,
    }


def _cpu_ns(step: Callable[[T], object], inputs: Sequence[T], each_s: float) -> float:
    """For one pass over the inputs."""
    found = []
    for _ in range(REPEATS):
        passes, begun_s = 0, time.process_time()
        while (spent_s := time.process_time() - begun_s) < each_s or not passes:
            for one in inputs:
                step(one)
            passes += 1
        found.append(spent_s / passes)
    return 1e9 * median(found)


def growth_case(tags: int, scans: int) -> str:
    """Its name in the output."""
    return f"growth{SEPARATOR}{tags}{SEPARATOR}{scans}"


def _cases() -> Iterator[tuple[str, Recording, list[Batch]]]:
    from bench.mixes import mix

    for name in SPEED_CASES:
        recording = mix(name, SPEED_TAGS, SPEED_SCANS * SPEED_MESSAGES)
        yield name, recording, list(recording.batches(SPEED_SCANS, sys.maxsize))
    for tags, scans in dict.fromkeys((*GROWTH_SCANS, *GROWTH_TAGS)):
        recording = mix("everything", tags, scans)
        yield growth_case(tags, scans), recording, list(recording.batches(scans, sys.maxsize))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.codec_speed")
    parser.add_argument("--without-numpy", action="store_true", help="behave as if numpy were not installed")
    parser.add_argument("--seconds", type=float, default=1.0, help="CPU time per case and form")
    options = parser.parse_args()
    has_numpy = importlib.util.find_spec("numpy") is not None
    if options.without_numpy:
        sys.modules["numpy"] = None  # type: ignore[assignment]  # how the import system is told that there is none
    found: dict[str, Any] = {"numpy": has_numpy and not options.without_numpy}
    for name, recording, batches in _cases():
        found[name] = {form.name: measure(form, batches, options.seconds) for form in _forms(recording)}
    json.dump(found, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
