"""`holdfast-cloud dlq …`: messages that could not be taken. Look at them, mend the cause, replay them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloud.commands.options import Assignments, Config, Json, clock, now_us, opened
from protocols.program.console import UNAVAILABLE, USAGE, Failure, ago, size, table
from protocols.program.terminal import clean, print_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloud.store.contract import DeadLetter, Store

letters = typer.Typer(no_args_is_help=True, help="Dead letters: messages that could not be taken, kept whole.")

Number = Annotated[int, typer.Argument(metavar="ID", min=1, help="Number of the dead letter.")]


@letters.command("list")
def list_letters(
    config: Config = None,
    assignments: Assignments = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many, the newest first.")] = 50,
    as_json: Json = False,
) -> None:
    """List the newest dead letters, with the reason of each."""
    with opened(config, assignments) as store:
        found = store.dead_letters(limit)
        waiting = len(store.waiting())
    if as_json:
        print_json({"waiting": waiting, "dead_letters": [_head(letter) for letter in found]})
        return
    if not found:
        typer.echo("There are no dead letters.")
        return
    now = now_us()
    table(
        ["id", "state", ">times", ">size", ">last", "topic", "reason"],
        [
            (
                *(letter.id, letter.state, letter.count, size(letter.size)),
                *(f"{ago((now - letter.last_us) / 1e6)} ago", letter.topic, letter.reason),
            )
            for letter in found
        ],
    )
    typer.echo(f"{waiting} waiting. Look at one with: holdfast-cloud dlq show ID")


@letters.command("show")
def show(
    number: Number,
    config: Config = None,
    assignments: Assignments = None,
    raw: Annotated[
        Path | None, typer.Option("--raw", metavar="FILE", help="Save the payload, byte by byte, in a new file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show a dead letter: why it is one, and what is in it as far as it can be read."""
    from cloud.commands.payload import explained, hex_head

    with opened(config, assignments) as store:
        letter, payload = store.dead_letter(number)
    if raw is not None:
        _save(raw, payload)
    contents = explained(letter.topic, payload)
    if as_json:
        print_json({**_head(letter), "contents": contents, "hex": payload[:256].hex()})
        return
    typer.echo(f"dead letter {letter.id}, {letter.state}")
    for label, text in (
        ("topic", letter.topic),
        ("reason", letter.reason),
        ("arrived", _times(letter)),
        ("payload", f"{letter.size:,} byte{'' if letter.size == 1 else 's'}"),
        *contents,
    ):
        typer.echo(f"  {label:9} {clean(text)}")
    for line in hex_head(payload):
        typer.echo(f"  {line}")
    if raw is not None:
        typer.echo(f"  the payload is saved in {raw}")


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of a dead letter."""

    id: int
    taken: bool
    outcome: str


@letters.command("replay")
def replay(
    number: Annotated[int | None, typer.Argument(metavar="[ID]", min=1, help="Number of the dead letter.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All that wait, the oldest first.")] = False,
    config: Config = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> int:
    """Try again to store a dead letter.

    It takes the way of a message that has just arrived, and is harmless where it is stored already. The exit code is
    1 where some remain dead letters.
    """
    if (number is None) is not every:
        raise Failure("name one dead letter, or --all; see them with: holdfast-cloud dlq list", USAGE)
    with opened(config, assignments) as store:
        numbers = store.waiting() if number is None else [number]
        done = [_replay(store, *found) for found in _definitions_first(store, numbers)]
    taken = sum(one.taken for one in done)
    if as_json:
        print_json({"replayed": taken, "remaining": len(done) - taken, "letters": done})
    else:
        _tell(done, taken)
    return 0 if taken == len(done) else 1


def _definitions_first(store: Store, numbers: Sequence[int]) -> Iterator[tuple[DeadLetter, bytes]]:
    """Telemetry that waits can refer to a definition that waits."""
    later = []
    for number in numbers:
        letter, payload = store.dead_letter(number)
        if "/definition/" in letter.topic:
            yield letter, payload
        else:
            later.append(number)
    yield from map(store.dead_letter, later)


@letters.command("drop")
def drop(
    number: Number,
    config: Config = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Throw a dead letter away, for good."""
    with opened(config, assignments) as store:
        store.drop_letter(number)
    if as_json:
        print_json({"dropped": number})
    else:
        typer.echo(f"Dead letter {number} is thrown away.")


def _tell(done: Sequence[Replayed], taken: int) -> None:
    if not done:
        typer.echo("No dead letter waits.")
        return
    table(["id", "", "outcome"], [(one.id, "✓" if one.taken else "✗", one.outcome) for one in done])
    typer.echo(f"{taken} replayed, {len(done) - taken} remain.")


def _replay(store: Store, letter: DeadLetter, payload: bytes) -> Replayed:
    """Through the receiver's own path: decode, then commit. A status counts as history, never as a sign of life."""
    from cloud import decode
    from cloud.definitions import Definitions
    from cloud.store.contract import Committed, Defined, Undecodable
    from protocols.uplink.definition import Definition
    from protocols.uplink.topics import MachineTopic

    def find(machine: MachineTopic, ref: bytes) -> Definition | None:
        return Definitions().find(store, machine, ref)

    item = decode.item(letter.topic, payload, retained=True, received_us=letter.last_us, find=find)
    if isinstance(item, Undecodable):
        return Replayed(letter.id, False, f"still undecodable: {item.reason}")
    if isinstance(item, decode.Undefined):
        return Replayed(letter.id, False, "it refers to a definition that is not here; its gateway sends both again")
    plant = item.topic.machine.plant if isinstance(item, Defined) else item.topic.plant
    if plant not in store.plants():
        return Replayed(letter.id, False, f"there is still no plant {plant}; add it first")
    (outcome,) = store.commit([item])
    taken = outcome in (Committed.NEW, Committed.DUPLICATE, Committed.BEAT, Committed.DEFINED)
    if taken:
        store.mark_replayed(letter.id)
    return Replayed(letter.id, taken, outcome.value)


def _head(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.id,
        "state": letter.state,
        "topic": letter.topic,
        "reason": letter.reason,
        "first_us": letter.first_us,
        "last_us": letter.last_us,
        "count": letter.count,
        "size": letter.size,
    }


def _times(letter: DeadLetter) -> str:
    first, last = (clock(time_us) for time_us in (letter.first_us, letter.last_us))
    return first if letter.count == 1 else f"{letter.count} times from {first} to {last}"


def _save(path: Path, payload: bytes) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(payload)
    except FileExistsError:
        raise Failure(f"{path} exists already and was left alone; choose another path", USAGE) from None
    except OSError as error:
        raise Failure(
            f"{path} cannot be written ({error.strerror}); check the path and your rights", UNAVAILABLE
        ) from None
