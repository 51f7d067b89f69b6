"""How `holdfast capture` asks the running agent to record, and what the agent says of it: two small files in data_dir.

    capture-request.json    written by the command, looked at by the agent once a second; removing it ends the recording
    capture-state.json      written by the agent while it records, and once more at the end
    captures/*.hfcap        the recordings, of which the agent keeps the latest few

Whoever may write into data_dir may ask; the request names neither a path nor an address. It ends by itself: the agent
takes no longer than SECONDS_MAX and no more than the ring's limit, whatever the file says.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import Field, ValidationError

from agent.capture.ring import LIMIT_BYTES, LIMIT_BYTES_MAX, LIMIT_BYTES_MIN
from protocols.field.contract import StrictModel

SECONDS_MAX = 7 * 86_400
FILE_BYTES_MAX = 65_536

REQUEST_MODE = 0o644
"""The agent has to read what another user, such as root, has written."""

Model = TypeVar("Model", bound=StrictModel)


class Request(StrictModel):
    """Record a device's line until then. `name`: of the file in the directory, which tells requests apart."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,99}\.hfcap$")
    device: str = Field(min_length=1, max_length=64)
    until_s: float = Field(ge=0, allow_inf_nan=False)  # seconds since 1970
    limit_bytes: int = Field(LIMIT_BYTES, ge=LIMIT_BYTES_MIN, le=LIMIT_BYTES_MAX)
    until_fault: bool = False


class State(StrictModel):
    """What the agent says of a recording. `trouble`: why it ended early, or never began; a sentence."""

    name: str
    device: str
    is_over: bool
    records: int = 0
    requests: int = 0
    bytes: int = 0
    faults: int = 0
    trouble: str = ""


def recordings(data_dir: str | Path) -> Path:
    """The directory of the agent's recordings."""
    return Path(data_dir) / "captures"


def request_path(data_dir: str | Path) -> Path:
    return Path(data_dir) / "capture-request.json"


def state_path(data_dir: str | Path) -> Path:
    return Path(data_dir) / "capture-state.json"


def load(path: Path, model: type[Model]) -> Model | None:
    """None where there is no such file, or it is not what it should be. Raises PermissionError."""
    try:
        with path.open("rb") as file:
            return model.model_validate_json(file.read(FILE_BYTES_MAX))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValidationError):
        return None


def save(path: Path, value: StrictModel, mode: int = 0o600) -> None:
    """In the place of what was there, at once. Raises OSError."""
    beside = path.with_suffix(".new")
    beside.write_text(value.model_dump_json())
    beside.chmod(mode)
    beside.replace(path)
