"""The serial line: a port of the operating system under the lean line, without any package.

pymodbus would need pyserial for this. What is needed here is little: open the port, set it raw with the right speed,
and let the event loop say when bytes are there. The port is ours alone while it is open (TIOCEXCL).
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import termios
import tty
from dataclasses import replace

from protocols.field.contract import Tap
from protocols.field.modbus_line import Link, Serial
from protocols.field.modbus_line_lean import LeanLine

_READ_BYTES = 4096
_PSEUDO_TERMINALS = range(136, 144)  # Linux's device numbers of the ends under /dev/pts
_IFLAG, _OFLAG, _CFLAG, _LFLAG, _ISPEED, _OSPEED = range(6)  # the places in what tcgetattr gives


async def open_serial(link: Link, transaction: int, tap: Tap | None = None) -> LeanLine:
    """A line over the port `link.host`. Raises OSError, also where the port cannot be set as asked."""
    if link.serial is None:
        raise OSError("no serial settings")
    line = LeanLine(replace(link, pause_s=max(link.pause_s, link.serial.frame_gap_s)), transaction, tap)
    descriptor = os.open(link.host, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        fcntl.ioctl(descriptor, termios.TIOCEXCL)
        _set(descriptor, link.serial)
        termios.tcflush(descriptor, termios.TCIOFLUSH)
    except termios.error as error:  # is no OSError, but carries the same arguments
        os.close(descriptor)
        raise OSError(*error.args) from error
    except OSError:
        os.close(descriptor)
        raise
    line.connection_made(SerialPort(descriptor, line))
    return line


def _set(descriptor: int, serial: Serial) -> None:
    tty.setraw(descriptor, termios.TCSANOW)
    attributes = termios.tcgetattr(descriptor)
    if os.major(os.fstat(descriptor).st_rdev) in _PSEUDO_TERMINALS:
        # There is no wire and so no parity. Asked for one again, the C library says that it cannot be set (EINVAL).
        serial = replace(serial, parity="none")
    attributes[_CFLAG] = control_flags(serial, attributes[_CFLAG])
    attributes[_ISPEED] = attributes[_OSPEED] = getattr(termios, f"B{serial.baudrate}")
    termios.tcsetattr(descriptor, termios.TCSANOW, attributes)


def control_flags(serial: Serial, flags: int) -> int:
    """The terminal's control flags (termios, c_cflag) changed to eight bits, this parity and these stop bits."""
    flags &= ~(termios.PARENB | termios.PARODD | termios.CSTOPB | termios.CSIZE | termios.CRTSCTS)
    flags |= termios.CS8 | termios.CREAD | termios.CLOCAL
    if serial.parity != "none":
        flags |= termios.PARENB | (termios.PARODD if serial.parity == "odd" else 0)
    return flags | (termios.CSTOPB if serial.stop_bits == 2 else 0)


class SerialPort(asyncio.BaseTransport):
    """The open port, as a transport: it has `write` and `abort`, and hands what comes to its line."""

    def __init__(self, descriptor: int, line: LeanLine) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._line = line
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(descriptor, self._read)

    def write(self, data: bytes) -> None:
        """Sends. A port that takes no whole request, which has at most 256 bytes, is taken for lost."""
        try:
            written = os.write(self._descriptor, data)
        except OSError as error:
            self._lose(error)
            return
        if written < len(data):
            self._lose(None)

    def abort(self) -> None:
        """Closes the port, and forgets what had not been sent yet."""
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:  # the adapter was unplugged
            self._lose(error)
            return
        if data:
            self._line.data_received(data)
        else:
            self._lose(None)

    def _lose(self, error: OSError | None) -> None:
        self.abort()
        self._line.connection_lost(error)
