"""How a command ends: an exit code, at most one plain sentence, never a traceback.

    def main() -> int:
        return run(app, sys.argv[1:], prog="holdfast")

In here typer is imported only when a command runs, and used so that it never reaches for rich except for help.
"""

from __future__ import annotations

import os
import select
import sys
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from platform import platform, python_version
from typing import TYPE_CHECKING, Any, TextIO

from protocols.program.problem import SettingsError
from protocols.program.terminal import ago as ago
from protocols.program.terminal import print_json, tell
from protocols.program.terminal import progress as progress
from protocols.program.terminal import size as size
from protocols.program.terminal import table as table

if TYPE_CHECKING:
    import typer

# sysexits.h, where one fits.
USAGE = 64
UNAVAILABLE = 69
INTERNAL = 70
TEMPORARY = 75
CONFIGURATION = 78
INTERRUPTED = 130  # 128 + SIGINT, as shells say it

_PROBLEMS_SHOWN_MAX = 50


class Failure(Exception):
    """A command cannot do what it was asked. The message is one sentence: what failed, where, what to do."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def run(app: typer.Typer, argv: Sequence[str], *, prog: str) -> int:
    """Run a command and return the exit code; `argv` without the program's name, which is `prog`.

    Errors go to stderr as one sentence, settings' problems as a line each; with `--json` among the arguments, to
    stdout as `{"error": …, "problems": […]}`. A command that returns a number ends with that exit code.
    """
    stdout = sys.stdout
    as_json = "--json" in _before_dashes(argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # an old locale must not turn a message into a crash
    try:
        code = _invoke(app, list(argv), prog, as_json)
        stdout.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _is_reader_gone(stdout):
            _drop(stdout)
            return 0
        return _crash(error, prog, as_json)
    except Exception as error:  # noqa: BLE001 - the outermost edge: whatever went wrong, a person reads one sentence
        return _crash(error, prog, as_json)


def _invoke(app: typer.Typer, argv: list[str], prog: str, as_json: bool) -> int:
    from typer import Abort, TyperException  # typer takes 50 ms: not before a command runs
    from typer.main import get_command

    stdout, stderr = sys.stdout, sys.stderr
    try:
        result: Any = get_command(app).main(argv, prog_name=prog, standalone_mode=False)
    except TyperException as error:
        return _usage(error, prog, as_json)
    except Failure as failure:
        _say(str(failure), as_json)
        return failure.exit_code
    except SettingsError as error:
        _say_problems(error, as_json)
        return CONFIGURATION
    except Abort:
        _say("cancelled", as_json)
        return 1
    except SystemExit as left:
        # typer leaves this way on any broken pipe, and puts wrappers around both streams.
        sys.stdout, sys.stderr = stdout, stderr
        if isinstance(left.__context__, BrokenPipeError):
            raise left.__context__ from None
        raise
    return result if isinstance(result, int) and not isinstance(result, bool) else 0


def _usage(error: typer.TyperException, prog: str, as_json: bool) -> int:
    message = " ".join(error.format_message().split()).rstrip(".")
    if type(error).__name__ == "NoArgsIsHelpError":  # no public name; its message is the help, already shown by rich
        sys.stderr.write(error.format_message())
        return USAGE
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else prog
    _say(f"{command}: {message[:1].lower()}{message[1:]}; see {command} --help", as_json)
    return USAGE


def _say(sentence: str, as_json: bool, problems: Sequence[dict[str, Any]] = ()) -> None:
    if as_json:
        print_json({"error": sentence, "problems": problems})
    else:
        tell(sentence, sys.stderr)


def _say_problems(error: SettingsError, as_json: bool) -> None:
    count = len(error.problems)
    if as_json:
        sentence = f"{count} problem{'' if count == 1 else 's'} in the settings; correct what each names"
        _say(sentence, as_json, [asdict(problem) for problem in error.problems])
        return
    lines = [str(problem) for problem in error.problems[:_PROBLEMS_SHOWN_MAX]]
    if count > _PROBLEMS_SHOWN_MAX:
        lines.append(f"… and {count - _PROBLEMS_SHOWN_MAX} more problems; correct these first")
    _say("\n".join(lines), as_json)


def _crash(error: Exception, prog: str, as_json: bool) -> int:
    """Say that the fault is ours, and leave what we need to find it in a file that only this user can read."""
    what = type(error).__name__
    try:
        descriptor, path = tempfile.mkstemp(prefix=f"{prog}-crash-", suffix=".txt")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as report:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            report.write(f"{prog} at {now}, Python {python_version()} on {platform()}\n\n")
            report.write("".join(traceback.format_exception(error)))
        where = f"the details are in {path}; please report them"
    except OSError as no_report:
        where = f"and no report could be written ({no_report.strerror}); make room and try again"
    _say(f"{prog}: an error of the program itself ({what}); {where}", as_json)
    return INTERNAL


def _before_dashes(argv: Sequence[str]) -> Sequence[str]:
    return argv[: argv.index("--")] if "--" in argv else argv


def _is_reader_gone(stream: TextIO) -> bool:
    """Whether it was this stream's pipe that broke, and not some connection's (poll(2), POLLERR)."""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):
        return False  # not a file at all: a test's buffer
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


def _drop(stream: TextIO) -> None:
    """Send what is still to be written nowhere, so that the interpreter's last flush succeeds (Python's `signal`)."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
