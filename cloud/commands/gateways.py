"""`holdfast-cloud gateway …`: which are there, how they are, and that they are ours."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloud.commands.options import Assignments, Config, Json, PlantArgument, clock, name, now_us, opened, plant
from protocols.program.console import USAGE, Failure, ago, table
from protocols.program.terminal import clean, folded_lines, print_json

if TYPE_CHECKING:
    from cloud.overview import GatewayView, Receiving
    from cloud.store.contract import Store

gateways = typer.Typer(no_args_is_help=True, help="Gateways: whether they are there, and what they say.")

COLUMNS = (
    *("state", ">since", "gateway", "plant", "known", ">last beat", ">buffer", ">oldest"),
    *("PLC links", ">clock", "version"),
)

_ENTER = "\x1b[?1049h\x1b[?25l"  # the alternate screen, without a cursor
_LEAVE = "\x1b[?25h\x1b[?1049l"


@dataclass(frozen=True, slots=True)
class Seen:
    """All gateways at one moment."""

    receiving: Receiving | None
    now_us: int
    views: Sequence[GatewayView]

    @property
    def as_of_us(self) -> int:
        """When what is said of them was true."""
        return self.now_us if self.receiving is None else self.receiving.as_of_us


@gateways.command("add")
def add(
    where: PlantArgument,
    thing: Annotated[str, typer.Argument(metavar="THING", help="The gateway's thing name.")],
    config: Config = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Register a gateway: it is ours. One that appeared by itself is pending until then."""
    from protocols.uplink.topics import GatewayTopic

    topic = GatewayTopic(plant(where), name(thing, "gateway"))
    with opened(config, assignments) as store:
        store.register_gateway(topic)
    if as_json:
        print_json({"plant": str(topic.plant), "thing": thing, "registered": True})
    else:
        typer.echo(f"Gateway {thing} of plant {topic.plant} is registered.")


@gateways.command("list")
def list_gateways(config: Config = None, assignments: Assignments = None, as_json: Json = False) -> None:
    """List the gateways, and how each is."""
    with opened(config, assignments) as store:
        seen = _look(store)
    if as_json:
        print_json(_as_json(seen))
        return
    for line in _notes(seen):
        typer.echo(line)
    if seen.views:
        table(COLUMNS, [_row(view, seen.as_of_us) for view in seen.views], fold=True)


@gateways.command("history")
def history(
    where: PlantArgument,
    thing: Annotated[str, typer.Argument(metavar="THING", help="The gateway's thing name.")],
    limit: Annotated[int, typer.Option("--limit", min=1, max=200, help="How many, the newest first.")] = 20,
    config: Config = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Show since when a gateway was what, and why."""
    from protocols.uplink.topics import GatewayTopic

    topic = GatewayTopic(plant(where), name(thing, "gateway"))
    with opened(config, assignments) as store:
        events = store.history(topic, limit)
    if as_json:
        print_json({"events": [asdict(event) for event in events]})
    elif not events:
        typer.echo(f"Nothing is known of a gateway {thing} in plant {topic.plant}.")
    else:
        table(["at", "event", "why"], [(clock(event.at_us), event.event, event.detail) for event in events], fold=True)


@gateways.command("clock")
def spans(
    where: PlantArgument,
    thing: Annotated[str, typer.Argument(metavar="THING", help="The gateway's thing name.")],
    config: Config = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Show when a gateway's clock was not synchronised, and what of its times was corrected."""
    from protocols.uplink.topics import GatewayTopic

    topic = GatewayTopic(plant(where), name(thing, "gateway"))
    with opened(config, assignments) as store:
        found = store.spans(topic)
    if as_json:
        print_json({"spans": [asdict(span) for span in found]})
    elif not found:
        typer.echo(f"Gateway {thing} of plant {topic.plant} has sent nothing by a clock that was not synchronised.")
    else:
        rows = [
            (
                clock(span.first_us),
                clock(span.last_us),
                f"{span.batches:,}",
                f"{span.corrected:,}",
                "never" if span.told_us is None else clock(span.told_us),
                "-" if span.zero_us is None else clock(span.zero_us),
            )
            for span in found
        ]
        table(["received from", "to", ">batches", ">corrected", "synchronised", "booted at"], rows, fold=True)


@gateways.command("accept")
def accept(
    where: PlantArgument,
    thing: Annotated[str, typer.Argument(metavar="THING", help="The gateway's thing name.")],
    config: Config = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Say that a gateway's fenced installation is the right one.

    If the other goes on speaking, that one is fenced.
    """
    from protocols.uplink.topics import GatewayTopic

    topic = GatewayTopic(plant(where), name(thing, "gateway"))
    with opened(config, assignments) as store:
        host = store.accept_gateway(topic)
    if as_json:
        print_json({"plant": str(topic.plant), "thing": thing, "host": host})
    else:
        typer.echo(clean(f"The installation of {thing} on host {host or 'unknown'} is accepted; stop the other one."))


@gateways.command("watch")
def watch(
    config: Config = None,
    assignments: Assignments = None,
    interval_s: Annotated[
        float, typer.Option("--interval", min=0.2, max=3600, help="Seconds from one look to the next.")
    ] = 1.0,
    as_json: Json = False,
) -> None:
    """Watch the gateways until Ctrl-C.

    With --json, one line of JSON for each look.
    """
    if not as_json and not sys.stdout.isatty():
        raise Failure("stdout is no terminal to draw on; use --json, or: holdfast-cloud gateway list", USAGE)
    try:
        if as_json:
            _print_lines(config, assignments, interval_s)
        else:
            with _screen():
                _draw(config, assignments, interval_s)
    except KeyboardInterrupt:
        return


def _print_lines(config: Path | None, assignments: list[str] | None, interval_s: float) -> None:
    from pydantic_core import to_json

    with opened(config, assignments) as store:
        while True:
            sys.stdout.write(to_json(_as_json(_look(store))).decode() + "\n")
            sys.stdout.flush()
            time.sleep(interval_s)


def _draw(config: Path | None, assignments: list[str] | None, interval_s: float) -> None:
    from cloud.store.contract import StoreAway

    with opened(config, assignments) as store:
        while True:
            cells, rows = get_terminal_size()
            try:
                seen = _look(store)
                lines = [*_notes(seen), *folded_lines(COLUMNS, [_row(v, seen.as_of_us) for v in seen.views], cells)]
            except StoreAway as error:
                lines = [str(error)]
            lines.insert(0, f"{time.strftime('%H:%M:%S')}  Ctrl-C ends")
            shown = "".join(f"{line}\x1b[K\r\n" for line in lines[: rows - 1])
            sys.stdout.write(f"\x1b[H{shown}\x1b[J")
            sys.stdout.flush()
            time.sleep(interval_s)


@contextmanager
def _screen() -> Iterator[None]:
    """A screen of its own; the terminal is as before afterwards, however this ends."""
    sys.stdout.write(_ENTER)
    try:
        yield
    finally:
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()


def _look(store: Store) -> Seen:
    from cloud import overview

    now = now_us()
    receiving = overview.receiving(store.receiver(), now)
    as_of, since = (now, now) if receiving is None else (receiving.as_of_us, receiving.listening_since_us)
    return Seen(receiving, now, [overview.gateway(row, as_of, since) for row in store.gateways()])


def _notes(seen: Seen) -> Iterator[str]:
    """What must be known before believing the table."""
    from cloud.overview import uncertain_times

    match seen.receiving:
        case None:
            yield "No receiver has run on this database yet; start it with: holdfast-cloud run"
        case receiving if not receiving.running:
            silence = ago((seen.now_us - receiving.as_of_us) / 1e6)
            yield f"The receiver is not running: this is how things were {silence} ago."
        case receiving if not receiving.connected:
            yield "The receiver has no connection to the broker at the moment; its log says why."
    for view in seen.views:
        if view.fenced:
            yield f"{view.thing} of {view.plant}: {view.fenced}"
        if (uncertain := uncertain_times(view)) != "":
            yield f"{view.thing} of {view.plant}: {uncertain}"
    if not seen.views:
        yield "No gateway is known yet; one appears with its first heartbeat from a known plant."


def _row(view: GatewayView, as_of_us: int) -> tuple[Any, ...]:
    from cloud.overview import links_in_short

    return (
        f"{view.presence.shape} {view.presence.word}",
        "-" if view.since_us is None else ago(max(0, as_of_us - view.since_us) / 1e6),
        view.thing,
        str(view.plant),
        "registered" if view.registered else "pending",
        "never" if view.alive_us is None else f"{ago((as_of_us - view.alive_us) / 1e6)} ago",
        "-" if view.queued is None else f"{view.queued:,}",
        "-" if view.oldest_s is None else ago(view.oldest_s),
        links_in_short(view.links) or "-",
        "-" if view.skew_us is None else _skew(view.skew_us / 1e6),
        view.version or "-",
    )


def _skew(skew_s: float) -> str:
    if abs(skew_s) >= 100:
        return f"{'+' if skew_s > 0 else '-'}{ago(abs(skew_s))}"
    return f"{round(skew_s, 1) or 0.0:+.1f} s"


def _as_json(seen: Seen) -> dict[str, Any]:
    receiving = seen.receiving
    return {
        "receiver": {
            "running": receiving is not None and receiving.running,
            "connected": receiving is not None and receiving.connected,
            "as_of_us": None if receiving is None else receiving.as_of_us,
        },
        "gateways": [
            {
                "thing": view.thing,
                "plant": str(view.plant),
                "registered": view.registered,
                "presence": view.presence.word,
                "reason": view.reason,
                "since_us": view.since_us,
                "host": view.host,
                "fenced": view.fenced,
                "alive_us": view.alive_us,
                "buffer": {
                    "messages": view.queued,
                    "bytes": view.queued_bytes,
                    "limit_bytes": view.limit_bytes,
                    "oldest_s": view.oldest_s,
                    "full_in_s": view.full_in_s,
                },
                "dropped": view.dropped,
                "links": {device: link.model_dump() for device, link in view.links},
                "skew_us": view.skew_us,
                "clock_synchronised": view.clock_synchronised,
                "uncertain": view.uncertain,
                "corrected": view.corrected,
                "certificate_days_left": view.certificate_days_left,
                "version": view.version,
            }
            for view in seen.views
        ],
    }
