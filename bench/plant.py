"""A Modbus TCP plant on a raw socket that is never the bottleneck: one prepared answer per request, no parsing beyond
what the answer needs.

    python -m bench.plant PORT...

Every holding register run is the same ramp of bytes, shifted by the time in tenths of a second, so that values change
every 100 ms. Prints "ready" when it listens.
"""

from __future__ import annotations

import asyncio
import struct
import sys
import time

HOST = "127.0.0.1"
_RAMP = bytes((n * 7) % 120 for n in range(1024))


class _Device(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= 12:
            transaction, _, length, unit, function, _, count = struct.unpack_from(">HHHBBHH", self._buffer)
            self._buffer = self._buffer[6 + length :]
            shift = int(time.monotonic() * 10) % 256
            registers = _RAMP[shift : shift + 2 * count]
            head = struct.pack(">HHHBBB", transaction, 0, 3 + len(registers), unit, function, len(registers))
            self._transport.write(head + registers)


async def _main(ports: list[int]) -> None:
    loop = asyncio.get_running_loop()
    for port in ports:
        await loop.create_server(_Device, HOST, port)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main([int(port) for port in sys.argv[1:]]))
