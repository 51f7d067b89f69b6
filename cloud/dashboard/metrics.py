"""A snapshot in Prometheus' text format 0.0.4. Pure. Names need no escaping in labels: see topics.NAME."""

from __future__ import annotations

from collections.abc import Mapping

from cloud.dashboard.snapshot import State

STATES = ("stored", "in_flight", "dropped", "missing")


def metrics(state: State) -> str:
    """The page's text at /metrics."""
    receiver, totals = state["receiver"], state["totals"]
    buffers = {
        f'{{plant="{gateway["plant"]}",gateway="{gateway["thing"]}"}}': gateway["queued"]
        for gateway in state["gateways"].values()
        if gateway["queued"] is not None
    }
    return "".join(
        [
            _family("receiver_connected", "gauge", "1 while connected to the broker.", {"": _connected(state)}),
            _family("readings_total", "counter", "Readings stored since the start.", {"": receiver["readings"]}),
            _family(
                "messages_total",
                "counter",
                "Messages since the start, by what became of them.",
                _by("outcome", receiver["messages"]),
            ),
            _family("gateways", "gauge", "Gateways by presence.", _by("presence", totals["presence"])),
            _family("gateway_buffer_messages", "gauge", "Messages in a gateway's outbox, as it last said.", buffers),
            _family("gateways_fenced", "gauge", "Gateways of which two installations speak.", {"": totals["fenced"]}),
            _family(
                "batches",
                "gauge",
                "Batches that are known to exist, over all epochs, by what became of them.",
                _by("state", {state: totals["ledger"][state] for state in STATES}),
            ),
            _family("machines_pending", "gauge", "Machines that nobody has approved.", {"": totals["pending"]}),
            _family(
                "dead_letters_waiting",
                "gauge",
                "Messages that could not be taken and were not replayed.",
                {"": state["dead_letters"]["waiting"]},
            ),
        ]
    )


def _connected(state: State) -> int:
    return int(state["receiver"]["connected_since_us"] is not None)


def _by(label: str, counts: Mapping[str, int]) -> dict[str, int]:
    return {f'{{{label}="{name}"}}': count for name, count in counts.items()}


def _family(name: str, kind: str, about: str, samples: Mapping[str, int]) -> str:
    lines = [f"# HELP holdfast_{name} {about}", f"# TYPE holdfast_{name} {kind}"]
    return "\n".join([*lines, *(f"holdfast_{name}{labels} {value}" for labels, value in samples.items())]) + "\n"
