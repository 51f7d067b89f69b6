"""What a viewer asks for: which tags, and how many of them. Bounded, whoever asks. Pure."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

ROWS_MAX = 500


class Query(BaseModel):
    """`filter`: words that all stand in `device/tag`, whatever their case; `wrong`: only tags without a good value."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    filter: Annotated[str, Field(max_length=200)] = ""
    wrong: bool = False
    offset: Annotated[int, Field(ge=0, le=1_000_000_000)] = 0
    limit: Annotated[int, Field(ge=0, le=ROWS_MAX)] = 100
