"""The edge's rows: which scenario runs with whom, and how its figures become rows of the table."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from bench import field, growth, limits_edge, scenario_footprint
from bench.agent import DEFAULT_CLIENT, Holdfast
from bench.peers import Contestant, Peer
from bench.peers.nodered import NodeRed
from bench.peers.thingsboard import ThingsBoard
from bench.processes import RunFailed
from bench.progress import progress
from bench.scenario import TAGS, Load
from bench.scenario_latency import LOAD as LATENCY_LOAD
from bench.scenario_latency import Latency, latency
from bench.scenario_outage import OUTAGE, Drain, Outage, backlog, outage, stored_backlog
from bench.scenario_steady import SETTLED_S, Steady, Sustained, steady, sustained
from bench.table import Row

T = TypeVar("T")

SECTIONS = ("steady", "sustained", "latency", "footprint", "backlog", "outage", "field", "growth")
BOTH_ENDS = "Holdfast with our receiver"
PEER_BACKLOG = Load(devices=1, period_s=0.25)


@dataclass(frozen=True, slots=True)
class Effort:
    """How long each measurement lasts, seconds; `windows`, `repeats`: whose median is taken."""

    steady_s: float
    windows: int
    trial_s: float
    trials: int
    latency_s: float
    repeats: int
    build_s: float
    part_s: float
    growth_s: float


FULL = Effort(9.0, 3, 4.0, 3, 8.0, 3, 12.0, 3.0, 4.0)
QUICK = Effort(3.0, 1, 2.0, 1, 3.0, 1, 2.0, 1.0, 2.0)
OURS_FIRST, PEERS_FIRST = 480_000.0, 20_000.0
PEERS_TRIALS = 2


class Edge:
    """One benchmark of the edge. Peers that are missing or fail become notes."""

    def __init__(self, options: argparse.Namespace, directory: Path) -> None:
        self.quick: bool = options.quick
        self.effort = QUICK if self.quick else FULL
        self._directory = directory
        self._runs = 0
        self.ours = Holdfast()
        self.default = Holdfast(DEFAULT_CLIENT)
        self.peers: list[Peer] = []
        self.reasons: list[str] = []
        everyone: list[Peer] = [ThingsBoard("memory"), ThingsBoard("sqlite"), NodeRed()]
        if options.no_peers:
            self.reasons.append("peers were left out by --no-peers")
            return
        for peer in everyone:
            why = self._prepare(peer)
            if why:
                self.reasons.append(f"{peer.name}: {why}")
            else:
                self.peers.append(peer)

    def _prepare(self, peer: Peer) -> str:
        if peer.missing() and not self.quick:
            progress(f"installing {peer.name} into an environment of its own")
            try:
                peer.install()
            except RunFailed as error:
                return str(error)
        return peer.missing()

    def versions(self) -> dict[str, str]:
        return {name: found for peer in self.peers for name, found in peer.versions().items()}

    def run(self, who: str, measure: Callable[[Path], T]) -> tuple[T | None, str]:
        """(figures, "") or (None, why there are none)."""
        self._runs += 1
        progress(who)
        try:
            return measure(self._directory / f"run-{self._runs}"), ""
        except RunFailed as error:
            progress(f"{who}: no figure: {error}")
            return None, f"{who}: {error}"

    def with_peers(
        self, what: str, peers: Sequence[Contestant], measure: Callable[[Path, Contestant], T], *, default: bool = False
    ) -> tuple[dict[str, T | None], list[str]]:
        """Each peer's figures, and why some have none. `default`: ours with its default client beside them."""
        found: dict[str, T | None] = {}
        notes = list(self.reasons)
        for peer in [*([self.default] if default and not self.quick else []), *peers]:
            found[peer.name], why = self.run(f"{what}: {peer.name}", lambda at, peer=peer: measure(at, peer))  # type: ignore[misc]
            notes += [why] if why else []
        return found, notes

    def limit(self, client: str, period_s: float) -> tuple[limits_edge.Limit | None, str]:
        seconds = 2.0 if self.quick else 6.0
        return self.run(
            f"limit: {client} client", lambda at: limits_edge.measure(at, client, period_s, max(seconds, 3 * period_s))
        )


def rows(options: argparse.Namespace) -> Iterator[Row]:
    """`options`: `quick`, `only` (section names, or nothing for all), `no_peers`."""
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as directory:
        edge = Edge(options, Path(directory))
        options.versions |= edge.versions()
        left_out = ("field", "growth") if edge.quick else ()  # two minutes are not enough for them
        wanted = options.only or [section for section in SECTIONS if section not in left_out]
        for section in SECTIONS:
            if section in wanted:
                yield from _SECTIONS[section](edge)


def _steady(edge: Edge) -> Iterator[Row]:
    for period_s in (1.0,) if edge.quick else (1.0, 0.1):
        yield from _steady_at(edge, Load(period_s=period_s))


def _steady_at(edge: Edge, load: Load) -> Iterator[Row]:
    effort = edge.effort
    peers = edge.peers if not edge.quick else []

    def measure(at: Path, contestant: Contestant) -> Steady:
        receiver = isinstance(contestant, Holdfast)
        return steady(
            at, contestant, load,
            seconds=effort.steady_s, windows=effort.windows, receiver=receiver, warm_up_s=SETTLED_S,
        )  # fmt: skip

    ours, why = edge.run(f"{load}: Holdfast", lambda at: measure(at, edge.ours))
    theirs, notes = edge.with_peers(str(load), peers, measure, default=True)
    bare, bare_why = edge.limit("bare", load.period_s)
    notes += [note for note in (why, bare_why, *_left_out(edge)) if note]
    note = "; ".join(notes)
    section = "Steady load, whole agent with durable outbox, MQTT and our receiver; all stored once"
    limit = ("bare client", bare.samples_per_cpu_s) if bare else None

    def row(what: str, unit: str, name: str, **more: object) -> Row:
        figures = {peer: None if found is None else getattr(found, name) for peer, found in theirs.items()}
        mine = None if ours is None else getattr(ours, name)
        return Row(section, f"{what}, {load}", unit, mine, figures, **more)  # type: ignore[arg-type]  # Row's own fields

    detail = {"ours": asdict(ours) if ours else None, "windows": effort.windows, "seconds": effort.steady_s}
    yield row(
        "samples per CPU-second", "samples/CPU-s", "samples_per_cpu_s", limit=limit, aim=(">=", 200_000), note=note,
        detail=detail,
    )  # fmt: skip
    if load.period_s == 1.0:
        cpu_limit = ("bare client", bare.cpu_percent) if bare else None
        yield row("CPU", "% of a core", "cpu_percent", limit=cpu_limit, aim=("<=", 1.0), better="lower")
        yield row("RSS", "MB", "rss_mb", aim=("<=", 50), better="lower")
        yield row(
            "requests per cycle, 1,500 registers", "requests", "requests_per_scan", aim=("<=", 12), better="lower"
        )


def _left_out(edge: Edge) -> list[str]:
    return ["peers are measured by the full run"] if edge.quick and edge.peers else []


def _sustained(edge: Edge) -> Iterator[Row]:
    effort = edge.effort
    first = OURS_FIRST

    def search(at: Path, who: Contestant, rate: float, receiver: bool) -> Sustained:
        trials = effort.trials if who is edge.ours else PEERS_TRIALS
        return sustained(at, who, rate, seconds=effort.trial_s, trials=trials, receiver=receiver)

    ours, why = edge.run("sustained: Holdfast", lambda at: search(at, edge.ours, first, False))
    stored, stored_why = (None, "")
    if not edge.quick:
        stored, stored_why = edge.run(f"sustained: {BOTH_ENDS}", lambda at: search(at, edge.ours, first / 2, True))
    theirs, notes = edge.with_peers(
        "sustained",
        [] if edge.quick else edge.peers,
        lambda at, peer: search(at, peer, 4 * PEERS_FIRST if peer is edge.default else PEERS_FIRST, False),
        default=True,
    )
    flat, flat_why = edge.limit("bare", 0.0)
    native, native_why = edge.limit("libmodbus", 0.0)
    notes += [note for note in (why, flat_why, native_why, *_left_out(edge)) if note]
    if ours:
        notes += ours.limits
    section = "Most samples/s with nothing lost, one agent; a confirming subscriber that stores nothing"
    peers = {name: None if found is None else found.steady.samples_per_s for name, found in theirs.items()}
    per_cpu = {name: None if found is None else found.steady.samples_per_cpu_s for name, found in theirs.items()}
    limit = ("bare client, one connection", flat.samples_per_s) if flat else None
    best = native or flat
    cpu_limit = ("libmodbus" if native else "bare client", best.samples_per_cpu_s) if best else None
    yield Row(
        section, "sustained", "samples/s", ours.steady.samples_per_s if ours else None, peers, limit, (">=", 400_000),
        "; ".join(notes), detail={"load": str(ours.load) if ours else None},
    )  # fmt: skip
    mine = ours.steady.samples_per_cpu_s if ours else None
    yield Row(section, "at that load", "samples/CPU-s", mine, per_cpu, cpu_limit, (">=", 400_000))
    if stored or stored_why:
        figure = stored.steady.samples_per_s if stored else None
        note = stored_why or ("; ".join(stored.limits) if stored else "")
        yield Row(section, "the same with our receiver storing on this machine", "samples/s", figure, note=note)


def _latency(edge: Edge) -> Iterator[Row]:
    def measure(at: Path, contestant: Contestant) -> Latency:
        receiver = isinstance(contestant, Holdfast)
        return latency(at, contestant, seconds=edge.effort.latency_s, receiver=receiver)

    ours, why = edge.run("latency: Holdfast", lambda at: measure(at, edge.ours))
    theirs, notes = edge.with_peers("latency", [] if edge.quick else edge.peers, measure, default=True)
    notes += [note for note in (why, *_left_out(edge)) if note]
    section = f"Read → subscriber, one scan per batch, fsync included, {LATENCY_LOAD}"
    for what, name, aim in (("p50", "p50_ms", 3.0), ("p95", "p95_ms", 6.0)):
        peers = {peer: None if found is None else getattr(found, name) for peer, found in theirs.items()}
        mine = getattr(ours, name) if ours else None
        note = "; ".join(notes) if what == "p50" else ""
        yield Row(section, what, "ms", mine, peers, None, ("<=", aim), note, "lower")
    row = ours.row_p95_ms if ours else None
    yield Row(section, "read → committed row, p95", "ms", row, aim=("<=", 25.0), better="lower")


def _footprint(edge: Edge) -> Iterator[Row]:
    section = "What it takes"
    effort = edge.effort
    ten = Load(devices=10)
    settle_s = 3.0 if edge.quick else 6.0
    peers = [] if edge.quick else edge.peers
    ours, why = edge.run(
        "RSS at 10,000 tags: Holdfast", lambda at: scenario_footprint.rss_mb(at, edge.ours, ten, settle_s)
    )
    theirs, notes = edge.with_peers(
        "RSS at 10,000 tags", peers, lambda at, peer: scenario_footprint.rss_mb(at, peer, ten, settle_s)
    )
    note = "; ".join([*notes, *([why] if why else []), *_left_out(edge)])
    yield Row(section, f"RSS, {ten}", "MB", ours, theirs, None, ("<=", 80), note, "lower")
    ours, why = edge.run("start: Holdfast", lambda at: scenario_footprint.start_s(at, edge.ours, effort.repeats))
    theirs, notes = edge.with_peers(
        "start", peers, lambda at, peer: scenario_footprint.start_s(at, peer, min(3, effort.repeats))
    )
    note = "; ".join([*notes, *([why] if why else [])])
    yield Row(section, f"start → first sample published, {Load()}", "s", ours, theirs, None, ("<=", 0.6), note, "lower")
    size, why = edge.run("install size: Holdfast", lambda _: scenario_footprint.install_size())
    # One installation serves both kinds of storage.
    sizes = {peer.name: peer.installed_bytes() for peer in edge.peers if peer.name != "ThingsBoard (sqlite)"}
    disk = {name: found[0] / 1e6 for name, found in sizes.items()}
    counts = {name: float(found[1]) for name, found in sizes.items()}
    mine = size[0] / 1e6 if size else None
    yield Row(section, "install size", "MB", mine, disk, None, ("<=", 60), why, "lower")
    yield Row(section, "packages installed", "", float(size[1]) if size else None, counts, None, None, "", "lower")
    if edge.quick:
        return
    size, why = edge.run(
        "install size with OPC UA: Holdfast",
        lambda _: scenario_footprint.install_size(scenario_footprint.LOCK_OPCUA),
    )
    mine = size[0] / 1e6 if size else None
    yield Row(section, "install size with OPC UA", "MB", mine, note=why, better="lower")


def _backlog(edge: Edge) -> Iterator[Row]:
    section = "Backlog: the broker away, then back; a confirming subscriber"
    ours, why = edge.run("backlog: Holdfast", lambda at: backlog(at, edge.ours, build_s=edge.effort.build_s))

    def measure(at: Path, peer: Contestant) -> Drain:
        return backlog(at, peer, build_s=edge.effort.build_s, load=PEER_BACKLOG)

    theirs, notes = edge.with_peers("backlog", [] if edge.quick else _durable(edge), measure)
    notes += [note for note in (why, *_left_out(edge)) if note]
    if ours:
        notes.append(f"ours drained {ours.samples:,} samples; they arrived at {ours.arrived_per_s:,.0f} samples/s, and "
                     "a confirm comes at most ten times a second while much comes, else once a second")  # fmt: skip
    drains = {name: None if found is None else found.confirmed_per_s for name, found in theirs.items()}
    disks = {name: None if found is None else found.disk_bytes_per_sample for name, found in theirs.items()}
    mine = ours.confirmed_per_s if ours else None
    yield Row(section, "drained until confirmed", "samples/s", mine, drains, None, (">=", 1e6), "; ".join(notes))
    mine = ours.disk_bytes_per_sample if ours else None
    yield Row(section, "disk per buffered sample", "bytes", mine, disks, None, ("<=", 2.0), "", "lower")
    if edge.quick:
        return
    build_s = edge.effort.build_s
    stored, why = edge.run(f"backlog: {BOTH_ENDS}", lambda at: stored_backlog(at, edge.ours, build_s=build_s))
    figure = stored.confirmed_per_s if stored else None
    what = "drained until committed by our receiver on this machine"
    yield Row(section, what, "samples/s", figure, note=why or f"{stored.samples:,} samples" if stored else why)


def _outage(edge: Edge) -> Iterator[Row]:
    section = "Broker outage with the agent killed twice in it; the plant's counters against the database"
    part_s = edge.effort.part_s
    ours, why = edge.run("outage: Holdfast", lambda at: outage(at, edge.ours, part_s=part_s, receiver=True))

    def measure(at: Path, peer: Contestant) -> Outage:
        return outage(at, peer, part_s=part_s)

    theirs, notes = edge.with_peers("outage", [] if edge.quick else _durable(edge), measure)
    notes += [note for note in (why, *_left_out(edge)) if note]
    notes.append(f"{OUTAGE}, one scan per batch; {TAGS:,} samples per poll counter that is missing")

    def row(what: str, count: Callable[[Outage], int], note: str = "", *, is_promise: bool = True) -> Row:
        peers = {name: None if found is None else float(count(found)) for name, found in theirs.items()}
        mine = float(count(ours)) if ours else None
        return Row(section, what, "samples", mine, peers, None, ("<=", 0) if is_promise else None, note, "lower")

    yield row("lost", lambda found: found.lost, "; ".join(notes))
    yield row("doubled", lambda found: found.doubled)
    yield row("in the program's hand when it was killed", lambda found: found.in_hand, is_promise=False)


def _durable(edge: Edge) -> list[Peer]:
    return [peer for peer in edge.peers if peer.name == "ThingsBoard (sqlite)"]


_SECTIONS: dict[str, Callable[[Edge], Iterator[Row]]] = {
    "steady": _steady,
    "sustained": _sustained,
    "latency": _latency,
    "footprint": _footprint,
    "backlog": _backlog,
    "outage": _outage,
    "field": field.rows,
    "growth": growth.rows,
}
