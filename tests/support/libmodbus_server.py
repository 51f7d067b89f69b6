"""A Modbus server that is not ours and not pymodbus's: libmodbus, the C library, in a process of its own.

    python -m tests.support.libmodbus_server tcp|rtu WHERE      WHERE: a port (0: any) or a serial port's path

It serves unit 1 with registers and bits 0 to 199 of each table, and answers whatever libmodbus answers. It says
"listening PORT" once it does. (libmodbus's own functions for floats are of no use here: those of 3.1.6 mean other
orders by ABCD and so on than the field does.)
"""

from __future__ import annotations

import asyncio
import ctypes
import ctypes.util
import os
import pty
import socket
import sys
import tty
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.cli import ROOT

SIZE = 200
FLOAT = 23.5
LAID = {"ABCD": 100, "CDAB": 102, "BADC": 104, "DCBA": 106}
"""Order → the holding register from which FLOAT, 41BC 0000, is laid down so."""

_WORDS = {"ABCD": (0x41BC, 0), "CDAB": (0, 0x41BC), "BADC": (0xBC41, 0), "DCBA": (0, 0xBC41)}

BAUD = 19_200
ADU_MAX = 260


class _Mapping(ctypes.Structure):
    """modbus_mapping_t of libmodbus 3.1."""

    _fields_ = (
        *((name, ctypes.c_int) for name in ("nb_bits", "start_bits", "nb_input_bits", "start_input_bits")),
        *((name, ctypes.c_int) for name in ("nb_input", "start_input", "nb_registers", "start_registers")),
        ("bits", ctypes.POINTER(ctypes.c_uint8)),
        ("input_bits", ctypes.POINTER(ctypes.c_uint8)),
        ("input", ctypes.POINTER(ctypes.c_uint16)),
        ("registers", ctypes.POINTER(ctypes.c_uint16)),
    )


def serve(kind: str, where: str) -> None:
    """Until it is killed."""
    found = ctypes.util.find_library("modbus")
    if found is None:
        sys.exit("these tests need libmodbus; install it (Debian: apt install libmodbus5)")
    library = ctypes.CDLL(found)
    for name in ("modbus_new_tcp", "modbus_new_rtu", "modbus_mapping_new"):
        getattr(library, name).restype = ctypes.c_void_p
    library.modbus_mapping_new.restype = ctypes.POINTER(_Mapping)
    library.modbus_new_rtu.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_char, ctypes.c_int, ctypes.c_int]
    mapping = library.modbus_mapping_new(SIZE, SIZE, SIZE, SIZE)
    _fill(mapping.contents)
    if kind == "tcp":
        _serve_tcp(library, mapping, int(where))
    else:
        context = ctypes.c_void_p(library.modbus_new_rtu(where.encode(), BAUD, b"E", 8, 1))
        library.modbus_set_slave(context, 1)
        if library.modbus_connect(context):
            sys.exit("libmodbus cannot open the serial port")
        print("listening 0", flush=True)
        started_by = os.getppid()
        while os.getppid() == started_by:  # a port whose other end is gone fails at once, again and again
            _exchanges(library, context, mapping)


def _serve_tcp(library: ctypes.CDLL, mapping: ctypes.c_void_p, port: int) -> None:
    context = ctypes.c_void_p(library.modbus_new_tcp(b"127.0.0.1", port))
    listening = library.modbus_tcp_listen(context, 4)
    if listening < 0:
        sys.exit("libmodbus cannot listen")
    with socket.socket(fileno=os.dup(listening)) as named:
        print(f"listening {named.getsockname()[1]}", flush=True)
    handle = ctypes.c_int(listening)
    while library.modbus_tcp_accept(context, ctypes.byref(handle)) >= 0:
        _exchanges(library, context, mapping)
        library.modbus_close(context)


def _exchanges(library: ctypes.CDLL, context: ctypes.c_void_p, mapping: ctypes.c_void_p) -> None:
    """Until the other end is gone, or a frame makes no sense."""
    query = (ctypes.c_uint8 * ADU_MAX)()
    while (size := library.modbus_receive(context, query)) >= 0:
        if size and library.modbus_reply(context, query, size, mapping) < 0:
            return


def _fill(mapping: _Mapping) -> None:
    """Each register its own address (input registers a thousand more), every third bit set; and the floats."""
    for at in range(SIZE):
        mapping.registers[at], mapping.input[at] = at, 1000 + at
        mapping.bits[at], mapping.input_bits[at] = at % 3 == 0, at % 3 == 1
    for order, at in LAID.items():
        mapping.registers[at], mapping.registers[at + 1] = _WORDS[order]


@asynccontextmanager
async def libmodbus_tcp() -> AsyncIterator[int]:
    """Its port."""
    async with _process("tcp", "0") as port:
        yield port


@asynccontextmanager
async def libmodbus_rtu() -> AsyncIterator[str]:
    """The path of a serial port at whose other end it is: two pseudo-terminals, and a wire between them."""
    ours, near = pty.openpty()
    theirs, far = pty.openpty()
    loop = asyncio.get_running_loop()
    for terminal in (near, far):
        tty.setraw(terminal)
    loop.add_reader(ours, lambda: os.write(theirs, os.read(ours, 4096)))
    loop.add_reader(theirs, lambda: os.write(ours, os.read(theirs, 4096)))
    try:
        async with _process("rtu", os.ttyname(far)):
            yield os.ttyname(near)
    finally:
        loop.remove_reader(ours)
        loop.remove_reader(theirs)
        for end in (ours, near, theirs, far):
            os.close(end)


@asynccontextmanager
async def _process(kind: str, where: str) -> AsyncIterator[int]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.support.libmodbus_server",
        kind,
        where,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    try:
        said = await process.stdout.readline()
        assert said.startswith(b"listening "), (await process.stderr.read()).decode()
        yield int(said.split()[1])
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


if __name__ == "__main__":
    serve(*sys.argv[1:])
