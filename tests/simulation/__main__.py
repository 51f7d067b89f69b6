"""Many seeds, on all cores; a seed that fails is printed, and runs again alone with `--seed`.

python -m tests.simulation [--seeds N] [--first SEED] [--seed SEED [--verbose]]
"""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
import time
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.run import run_seed

CHUNK = 10
TOLD = 500  # seeds from one word of progress to the next
ADDR_NO_RANDOMIZE = 0x0040000  # personality(2)


def run_chunk(first: int, count: int) -> tuple[Counter[str], list[tuple[int, str]]]:
    """(figures of all that passed, (seed, what broke) of the others)."""
    figures: Counter[str] = Counter()
    broken = []
    for seed in range(first, first + count):
        try:
            figures += run_seed(seed)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is the seed's result
            broken.append((seed, "".join(traceback.format_exception(error))))
    return figures, broken


def run_many(first: int, count: int, workers: int | None = None) -> tuple[Counter[str], list[tuple[int, str]]]:
    """As `run_chunk`, on several cores."""
    figures: Counter[str] = Counter()
    broken: list[tuple[int, str]] = []
    starts = range(first, first + count, CHUNK)
    sizes = [min(CHUNK, first + count - at) for at in starts]
    with ProcessPoolExecutor(workers or os.cpu_count()) as pool:
        for at, size, (found, failed) in zip(starts, sizes, pool.map(run_chunk, starts, sizes), strict=True):
            figures += found
            broken += failed
            for seed, _ in failed:
                print(f"seed {seed} broke", flush=True)
            if (done := at - first + size) % TOLD == 0 and done < count:
                print(f"{done:,} of {count:,} seeds", flush=True)
    return figures, broken


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=500)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--verbose", action="store_true", help="with the programs' logs")
    options = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets is a chance that no seed would decide:
        command = [sys.executable, "-m", "tests.simulation", *sys.argv[1:]]
        ctypes.CDLL(None).personality(ADDR_NO_RANDOMIZE)  # of texts, and of objects, which go by their addresses
        os.execve(sys.executable, command, {**os.environ, "PYTHONHASHSEED": "0"})  # noqa: S606
    if options.seed is not None:
        print(dict(run_seed(options.seed, verbose=options.verbose)))
        return 0
    begun_s = time.monotonic()
    figures, broken = run_many(options.first, options.seeds)
    for seed, why in broken[:5]:
        print(f"seed {seed}:\n{why}\n")
    print(f"{options.seeds} seeds from {options.first} in {time.monotonic() - begun_s:.0f} s: {dict(figures)}")
    print(f"{len(broken)} broken: {[seed for seed, _ in broken]}" if broken else "none broken")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
