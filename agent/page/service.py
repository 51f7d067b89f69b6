"""Serves the page for as long as the agent runs. What goes wrong is said once: the agent goes on without it."""

from __future__ import annotations

import asyncio
import ipaddress

from agent.live.live import Live
from agent.page.traces import Traces
from agent.settings import PageSettings
from protocols.program.listening import PageError
from protocols.program.logs import get_logger

RETRY_S = 30.0

_log = get_logger(part="page")


async def serve_page(live: Live, traces: Traces, settings: PageSettings) -> None:
    """Until cancelled. aiohttp is imported here, and only here: an agent without a page does without it."""
    try:
        from agent.page.server import Page
    except ModuleNotFoundError as error:
        _log.error(
            f"the page is not served: {error.name} is not installed; install it with: pip install 'holdfast[page]'"
        )
        return
    said = ""
    while True:
        try:
            async with Page(live, traces, settings) as page:
                _log.info(
                    "page", url=page.url, **({} if is_local(settings.host) else {"login": "none, open to others"})
                )
                await asyncio.Event().wait()
        except PageError as error:
            if str(error) != said:
                said = str(error)
                _log.warning(said)
        await asyncio.sleep(RETRY_S)


def is_local(host: str) -> bool:
    """Whether only this machine can reach what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
