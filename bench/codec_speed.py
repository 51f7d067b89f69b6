"""What encoding and decoding cost the CPU: a program of its own, so that it can be run with and without numpy.

    python -m bench.codec_speed [--without-numpy] [--without-growth] [--seconds S] [MIX …]

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
from itertools import islice
from statistics import median
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from bench.recordings import Recording
    from bench.wire import Wire
    from protocols.uplink.batch import Batch
    from protocols.uplink.flat import Layout

SPEED_TAGS, SPEED_SCANS, SPEED_MESSAGES = 1000, 60, 2
ONE_SCAN_MESSAGES = 12
LEARN_MESSAGES = 8
"""So many go before, until the definition is what it is in the long run."""
GROWTH_SCANS = ((100, 6), (100, 60), (100, 600))
GROWTH_TAGS = ((100, 60), (1000, 60), (10_000, 60))
REPEATS = 5
SEPARATOR = " | "
LISTS, ARRAYS, ROWS, PEER, LIMIT = "lists", "arrays", "rows", "msgpack + zstd", "zstd alone"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Form:
    """One way to write a batch, and to read it again. `prepare` gives what `encode` starts from, untimed.

    `read` is what the timed decoding does, where that is not all that is needed to compare.
    """

    name: str
    prepare: Callable[[Batch], Any]
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Batch]
    read: Callable[[bytes], object]


def _forms(recording: Recording, learned: Sequence[Batch], *, with_arrays: bool) -> Iterator[Form]:
    from bench.wire import MsgpackColumns, Wire

    ours, peer = Wire(recording.device, recording.named()), MsgpackColumns()
    for batch in learned:
        ours.encode(batch)

    def prepare(batch: Batch) -> Any:
        return batch, [ours.scans(block) for block in batch.blocks]

    def encode(prepared: Any) -> bytes:
        batch, scans = prepared
        return ours.encode_scans(batch, scans)

    def columns(message: bytes) -> object:
        return [block.columns for block in ours.decode(message).blocks]

    yield Form(LISTS, prepare, encode, ours.decode, columns)
    whole = all(tag.rows is None and tag.quality is None for tag in recording.tags)
    if whole:
        yield Form(ROWS, prepare, encode, ours.decode, lambda message: _rows(ours.decode(message)))
    if whole and with_arrays:
        yield _arrays(ours, learned[-1])
    yield _zstd_alone(ours)
    yield Form(PEER, lambda batch: batch, peer.encode, peer.decode, peer.decode)


def _rows(batch: Batch) -> object:
    from protocols.uplink.flat import RowBlock

    return [block.rows for block in batch.blocks if isinstance(block, RowBlock)]


def _arrays(ours: Wire, learned: Batch) -> Form:
    """From arrays and to arrays, with the definition that the gateway has at the end of what it learned."""
    from protocols.uplink import definition
    from protocols.uplink.array_packer import ArrayPacker
    from protocols.uplink.envelope import encode_referring
    from protocols.uplink.frames import unpack

    reference = unpack(ours.encode(learned))[2][0][0]
    found = definition.decode(next(said.message for said in ours.beside if said.ref == reference))
    packer, layout = ArrayPacker(reference, found), found.layout(reference)

    def prepare(batch: Batch) -> Any:
        [block] = batch.blocks
        values = [column.values for column in block.columns]
        return batch.seq, list(block.times_us), _as_arrays(layout, values)

    def encode(prepared: Any) -> bytes:
        seq, times_us, values = prepared
        return encode_referring(seq, [packer.pack_arrays(times_us, values)])

    def values(message: bytes) -> object:
        [block] = ours.decode(message).blocks
        return block.values  # type: ignore[attr-defined]  # an ArrayBlock; otherwise the bench has to fail

    return Form(ARRAYS, prepare, encode, ours.decode, values)


def _as_arrays(layout: Layout, values: Sequence[Sequence[Any]]) -> dict[Any, Any]:
    import numpy as np

    from protocols.values import ValueType

    dtypes = {"bool": np.bool_, "int": np.int64, "uint": np.uint64, "float32": np.float32, "float64": np.float64}
    return {
        kind: [values[at] for at in positions]
        if kind is ValueType.STRING
        else np.array([values[at] for at in positions], dtypes[kind.value])
        for kind, positions in layout.by_type.items()
    }


def _zstd_alone(ours: Wire) -> Form:
    """What no codec with this content in a zstd frame can be faster than."""
    from protocols.uplink import frames

    return Form(
        LIMIT, lambda batch: frames.decompress(ours.encode(batch)), frames.compress, ours.decode, frames.decompress
    )


def measure(form: Form, batches: Sequence[Batch], seconds: float) -> dict[str, float]:
    """CPU ns per sample, the median of repeats of `seconds` together; bytes per sample."""
    from bench.wire import same

    samples = sum(batch.readings() for batch in batches)
    prepared = [form.prepare(batch) for batch in batches]
    messages = [form.encode(one) for one in prepared]
    for batch, message in zip(batches, messages, strict=True):
        if not same(batch, _joined(form.decode(message))):
            raise AssertionError(f"{form.name}: a message did not come back as it was")
    each_s = seconds / REPEATS / 2
    return {
        "encode": _cpu_ns(form.encode, prepared, each_s) / samples,
        "decode": _cpu_ns(form.read, messages, each_s) / samples,
        "bytes": sum(map(len, messages)) / samples,
    }


def _joined(batch: Batch) -> Batch:
    """With the blocks of one poll group as one again: a gateway cuts a group of very many tags into several."""
    from protocols.uplink.batch import Batch, Block, Column

    columns: dict[tuple[str, tuple[int, ...]], list[Column]] = {}
    for block in batch.blocks:
        columns.setdefault((block.device, tuple(block.times_us)), []).extend(block.columns)
    blocks = [Block(device, times_us, found) for (device, times_us), found in columns.items()]
    return Batch(batch.gateway, batch.epoch, batch.seq, blocks)


def _cpu_ns(step: Callable[[T], object], inputs: Sequence[T], each_s: float) -> float:
    """For one pass over the inputs: the median of REPEATS, or of fewer where each takes longer than it should."""
    found: list[float] = []
    while len(found) < REPEATS and (sum(found) < REPEATS * each_s or len(found) < 2):
        passes, begun_s = 0, time.process_time()
        while (spent_s := time.process_time() - begun_s) < each_s or not passes:
            for one in inputs:
                step(one)
            passes += 1
        found.append(spent_s / passes)
    return 1e9 * median(found)


def speed_case(mix: str, scans: int) -> str:
    """Its name in the output."""
    return f"{mix}{SEPARATOR}{scans}"


def growth_case(tags: int, scans: int) -> str:
    """Its name in the output."""
    return f"growth{SEPARATOR}{tags}{SEPARATOR}{scans}"


def _cases(
    mixes: Sequence[str], *, with_numpy: bool, with_growth: bool
) -> Iterator[tuple[str, Recording, int, int, tuple[str, ...]]]:
    """Name, recording, scans per message, messages that are measured (the others go before), forms that are wanted.

    One scan, and growth, are the plain way's: with numpy it would be the same again.
    """
    from bench.mixes import mix

    for name in mixes:
        recording = mix(name, SPEED_TAGS, SPEED_SCANS * (LEARN_MESSAGES + SPEED_MESSAGES))
        yield speed_case(name, SPEED_SCANS), recording, SPEED_SCANS, SPEED_MESSAGES, (LISTS, ARRAYS, LIMIT, PEER)
        if not with_numpy:
            yield speed_case(name, 1), recording, 1, ONE_SCAN_MESSAGES, (ROWS, LISTS, PEER)
    if with_numpy or not with_growth:
        return
    for tags, scans in dict.fromkeys((*GROWTH_SCANS, *GROWTH_TAGS)):
        yield growth_case(tags, scans), mix("everything", tags, 2 * scans), scans, 1, (LISTS, PEER)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.codec_speed")
    parser.add_argument("--without-numpy", action="store_true", help="behave as if numpy were not installed")
    parser.add_argument("--without-growth", action="store_true", help="leave out what grows")
    parser.add_argument("--seconds", type=float, default=1.0, help="CPU time per case and form")
    parser.add_argument(
        "mixes", nargs="*", metavar="MIX", help="of bench/mixes.py; growth is measured without being named"
    )
    options = parser.parse_args()
    has_numpy = importlib.util.find_spec("numpy") is not None
    if options.without_numpy:
        sys.modules["numpy"] = None  # type: ignore[assignment]  # how the import system is told that there is none
    with_numpy = has_numpy and not options.without_numpy
    found: dict[str, Any] = {"numpy": with_numpy}
    for name, recording, scans, count, wanted in _cases(
        options.mixes, with_numpy=with_numpy, with_growth=not options.without_growth
    ):
        batches = list(islice(recording.batches(scans, sys.maxsize), LEARN_MESSAGES + count))
        learned, measured = batches[:-count], batches[-count:]
        forms = _forms(recording, learned, with_arrays=with_numpy and scans > 1)
        found[name] = {form.name: measure(form, measured, options.seconds) for form in forms if form.name in wanted}
    json.dump(found, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
