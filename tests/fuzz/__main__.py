"""Feed damaged messages to everything that takes bytes from strangers, for a bounded time.

    python -m tests.fuzz [--seconds S] [--target NAME ...] [--seed N [--count K]]

A case is decided by its target and its seed. One that fails is printed with the command that runs it again.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.fuzz.mutate import damaged
from tests.fuzz.targets import TARGETS, Target, seeded


def run_case(name: str, target: Target, seed: int) -> None:
    """Raises what the target raised beyond what it may."""
    chance = seeded(name, seed)
    payload = damaged(chance.choice(target.corpus), target.corpus, chance)
    try:
        target.feed(payload)
    except target.allowed:
        pass
    except Exception as error:  # any other is what is looked for; it is passed on with what led to it
        error.add_note(f"python -m tests.fuzz --target {name} --seed {seed} --count 1\npayload: {payload[:2000].hex()}")
        raise


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="in all; shared evenly among the targets")
    parser.add_argument("--target", action="append", choices=sorted(TARGETS), default=[])
    parser.add_argument("--seed", type=int, help="begin with this one; by chance where it is not given")
    parser.add_argument("--count", type=int, help="so many cases, however long that takes")
    options = parser.parse_args()
    first = options.seed if options.seed is not None else time.time_ns() % 1_000_000_000
    names = options.target or sorted(TARGETS)
    for name in names:
        target, seed = TARGETS[name](), first
        end_s = time.monotonic() + options.seconds / len(names)
        while seed < first + options.count if options.count else time.monotonic() < end_s:
            run_case(name, target, seed)
            seed += 1
        print(f"{name}: {seed - first:,} cases from seed {first}, none that raised what it may not", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
