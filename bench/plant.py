"""A Modbus TCP plant on raw sockets that is never the bottleneck: one slice of prepared bytes per request.

    python -m bench.plant CONTROL_PORT PORT...

Each port is one device with the registers of `bench.scenario`; every register of a moving tag changes every 100 ms.
What the values are like: a third of the floats is a scaled analogue input (an integer × 0.01), a third a full-precision
random walk, a third a set point that hardly changes; of the integers a third walks, a third counts, a third is still.
Whoever connects to the control port gets a line of JSON: per device port how many requests came, and how many of them
were for the first block of the registers (that is how many scans began), for the last (how many were whole) and for the
info registers. After the word `mute` it answers no more Modbus request.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
import sys
import time
from pathlib import Path

from bench import scenario
from bench.processes import HOST, Process, free_ports, python, wait_until

FRAMES = 128
FRAME_S = 0.1
_REQUEST = struct.Struct(">HHHBBHH")
_HEAD = struct.Struct(">HHHBBB")
_READ_HOLDING = 3
_LAST = (scenario.MIXED_AT + scenario.REGISTERS, scenario.SPLIT_AT + scenario.REGISTERS)


def frames() -> list[bytes]:
    """The registers from 0 as bytes, one per 100 ms, then again from the first. Always the same: the seed is fixed."""
    chance = random.Random(20)
    floats = [chance.uniform(10, 90) for _ in range(scenario.FLOATS)]
    integers = [chance.randrange(0, 4000) for _ in range(scenario.INTEGERS)]
    tags = scenario.mixed()
    made = []
    for _ in range(FRAMES):
        for at in range(scenario.FLOATS):
            if at % 3 == 0:
                floats[at] = round(floats[at] + chance.choice((-0.02, -0.01, 0.01, 0.02)), 2)
            elif at % 3 == 1:
                floats[at] += chance.gauss(0, 0.05)
            elif chance.random() < 0.002:
                floats[at] = round(chance.uniform(10, 90), 1)
        for at in range(scenario.INTEGERS):
            if at % 3 == 0:
                integers[at] = max(0, integers[at] + chance.choice((-2, -1, 1, 2)))
            elif at % 3 == 1:
                integers[at] = (integers[at] + 1) % 30_000
        made.append(_frame(tags, floats, integers))
    return made


def _frame(tags: list[scenario.Tag], floats: list[float], integers: list[int]) -> bytes:
    packed_floats = [struct.pack(">f", value) for value in floats]
    packed_integers = [struct.pack(">h", value) for value in integers]
    values = {"f": iter(packed_floats), "i": iter(packed_integers)}
    mixed = b"".join(next(values[tag.name[0]]) for tag in tags)
    split = b"".join(packed_floats + packed_integers)
    return mixed.ljust(2 * scenario.SPLIT_AT, b"\0") + split


class _Counts:
    def __init__(self) -> None:
        self.requests = self.scans = self.whole = self.whole_requests = self.info = 0


class _Device(asyncio.Protocol):
    def __init__(self, made: list[bytes], counts: _Counts) -> None:
        self._frames, self._counts = made, counts
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        while len(buffer) >= _REQUEST.size:
            request = _REQUEST.unpack_from(buffer)
            buffer = buffer[6 + request[2] :]
            self._answer(*request)
        self._buffer = buffer

    def _answer(self, transaction: int, _: int, __: int, unit: int, function: int, address: int, count: int) -> None:
        if _muted.is_set():
            return
        self._counts.requests += 1
        frame = self._frames[int(time.monotonic() / FRAME_S) % FRAMES]
        registers = frame[2 * address : 2 * (address + count)]
        if function != _READ_HOLDING or len(registers) != 2 * count:
            self._transport.write(_HEAD.pack(transaction, 0, 3, unit, function | 0x80, 2))  # illegal data address
            return
        if address in (scenario.MIXED_AT, scenario.SPLIT_AT):
            self._counts.scans += 1
        if address + count in _LAST:
            self._counts.whole += 1
            self._counts.whole_requests = self._counts.requests
        if address == scenario.INFO_AT:
            self._counts.info += 1
            stamp_us = time.time_ns() // 1000
            registers = struct.pack(">QI", stamp_us, self._counts.info)[: len(registers)].ljust(len(registers), b"\0")
        elif address == scenario.COUNT_AT:  # for those who read the info registers one by one
            registers = struct.pack(">I", self._counts.info)[: len(registers)].ljust(len(registers), b"\0")
        head = _HEAD.pack(transaction, 0, 3 + len(registers), unit, function, len(registers))
        self._transport.write(head + registers)


_muted = asyncio.Event()


async def _main(control_port: int, ports: list[int]) -> None:
    made = frames()
    counts = {port: _Counts() for port in ports}

    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readline() == b"mute\n":
            _muted.set()
        writer.write(json.dumps({port: vars(count) for port, count in counts.items()}).encode() + b"\n")
        await writer.drain()
        writer.close()

    loop = asyncio.get_running_loop()
    for port in ports:
        await loop.create_server(lambda port=port: _Device(made, counts[port]), HOST, port)  # type: ignore[misc]
    await asyncio.start_server(tell, HOST, control_port)
    await asyncio.Event().wait()


class Plant:
    """The plant's process, seen from the harness."""

    def __init__(self, devices: int, log: Path) -> None:
        self._control_port, *self.ports = free_ports(devices + 1)
        self.process: Process = python("plant", "bench.plant", [str(self._control_port), *map(str, self.ports)], log)
        wait_until(self._answers, "the plant's start", 20.0, self.process)

    def counts(self) -> dict[str, int]:
        """`requests`; `scans` begun; `whole` scans, and the requests until then (`whole_requests`); reads of `info`."""
        return self._sums("")

    def mute(self) -> dict[str, int]:
        """Answer no more. Gives the counts, which are final then."""
        return self._sums("mute")

    def _sums(self, word: str) -> dict[str, int]:
        each = list(self._ask(word).values())
        return {what: sum(device[what] for device in each) for what in each[0]}

    def _ask(self, word: str = "") -> dict[str, dict[str, int]]:
        with socket.create_connection((HOST, self._control_port), 5.0) as line, line.makefile() as file:
            line.sendall(word.encode() + b"\n")
            answer: dict[str, dict[str, int]] = json.loads(file.readline())
            return answer

    def _answers(self) -> bool:
        try:
            self._ask()
        except OSError:
            return False
        return True


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), [int(port) for port in sys.argv[2:]]))
