"""Logging for both programs: set up once, the same lines everywhere.

    terminal        09:41:07 warning  no answer within 1 s  device=plc-1
    service         <4>event="no answer within 1 s" level=warning device=plc-1       (the journal adds the time)
    file, pipe      timestamp=2026-11-30T08:41:07Z level=warning event="no answer within 1 s" device=plc-1
    --log-json      {"timestamp": "2026-11-30T08:41:07Z", "level": "warning", "event": "...", "device": "plc-1"}

Our own lines are written by structlog; those of libraries, which use `logging`, come out alike from WARNING upwards.
A log that cannot be written (disk full, reader gone) never stops the program: those lines are lost.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, TextIO

from protocols.program.terminal import clean, colourful

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger, Processor

Level = Literal["debug", "info", "warning", "error"]
_LEVELS: Mapping[str, int] = {"debug": 10, "info": 20, "warning": 30, "error": 40}

# sd-daemon(3): how a line's first characters tell the journal its priority.
_PRIORITIES = {"debug": "<7>", "info": "<6>", "warning": "<4>", "error": "<3>", "critical": "<2>"}
_ORDER = ("timestamp", "level", "event")


class _Output:
    """A stream that loses lines rather than raising: there is nowhere left to complain to."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):  # ValueError: closed
            return self._stream.write(text)
        return 0

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


def get_logger(**context: Any) -> FilteringBoundLogger:
    """A logger for a module or an object; `context` stands on each of its lines. May be had before `configure`."""
    logger: FilteringBoundLogger = _structlog().get_logger(**context)
    return logger


def configure(*, level: Level = "info", as_json: bool = False, stream: TextIO | None = None) -> None:
    """Set up logging for the process, to stderr unless told otherwise. A second call replaces the first.

    Tracebacks are for us: they appear at level debug and in JSON; elsewhere an exception is one `error=` on its line.
    """
    structlog = _structlog()
    target = stream if stream is not None else sys.stderr
    output: Any = _Output(target)
    shared = _shared(target, level, as_json)
    render = _renderer(target, as_json)
    structlog.configure(
        processors=[*shared, *render],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(output),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(output)
    formatter = structlog.stdlib.ProcessorFormatter
    handler.setFormatter(
        formatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[formatter.remove_processors_meta, *render],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


def log_crash(event: str, error: BaseException) -> None:
    """Log the error with its traceback, unless stderr is a terminal: there the crash report suffices.

    A service's /tmp is gone when it has ended, and the crash report with it.
    """
    if not sys.stderr.isatty():
        get_logger().error(event, traceback="".join(traceback.format_exception(error)))


def _structlog() -> Any:
    """structlog, imported without rich: it would load it only for tracebacks in colour, and take 90 ms for that.

    A None in `sys.modules` makes an import fail (Python reference, 5.3.1), which structlog is prepared for.
    """
    if "structlog" not in sys.modules and "rich" not in sys.modules:
        sys.modules["rich"] = None  # type: ignore[assignment]  # the reference allows None, typeshed does not
        try:
            import structlog
        finally:
            del sys.modules["rich"]
    import structlog

    return structlog


def _shared(stream: TextIO, level: Level, as_json: bool) -> list[Processor]:
    """The steps before the line is rendered."""
    structlog = _structlog()
    steps: list[Processor] = [structlog.contextvars.merge_contextvars, structlog.processors.add_log_level]
    if as_json or not (stream.isatty() or _is_journal(stream)):
        steps.append(structlog.processors.TimeStamper(fmt="iso", utc=True))
    elif stream.isatty():
        steps.append(structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False))
    steps.append(structlog.processors.format_exc_info if as_json or level == "debug" else _exception_in_one_line)
    return steps


def _renderer(stream: TextIO, as_json: bool) -> list[Processor]:
    structlog = _structlog()
    if as_json:
        return [_in_order, structlog.processors.JSONRenderer(ensure_ascii=False, default=str)]
    if stream.isatty():
        plain = structlog.dev.plain_traceback
        return [
            _cleaned,
            structlog.dev.ConsoleRenderer(
                colors=colourful(stream), pad_event_to=0, sort_keys=False, exception_formatter=plain
            ),
        ]
    logfmt = structlog.processors.LogfmtRenderer(key_order=_ORDER, drop_missing=True, bool_as_flag=False)
    return [_cleaned, _with_priority(logfmt) if _is_journal(stream) else logfmt]


def _in_order(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {**{key: event[key] for key in _ORDER if key in event}, **event}


def _cleaned(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """What devices and strangers sent must not steer the terminal. A traceback keeps its lines."""
    as_they_are = (bool, int, float, type(None))
    return {
        key: value if key == "exception" or isinstance(value, as_they_are) else clean(str(value))
        for key, value in event.items()
    }


def _exception_in_one_line(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    given = event.pop("exc_info", None)
    error = sys.exc_info()[1] if given is True else given[1] if isinstance(given, tuple) else given
    if isinstance(error, BaseException):
        event.setdefault("error", f"{type(error).__name__}: {error}".removesuffix(": "))
    return event


def _with_priority(render: Callable[..., str]) -> Processor:
    def rendered(logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        return _PRIORITIES.get(event.get("level", ""), "<6>") + render(logger, method, event)

    return rendered


def _is_journal(stream: TextIO) -> bool:
    """Whether the stream goes to systemd's journal: JOURNAL_STREAM holds its device and inode, systemd.exec(5)."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
