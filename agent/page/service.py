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


class PageService:
    """`take` gets every scan; `run` serves until it is cancelled."""

    def __init__(self, live: Live, settings: PageSettings) -> None:
        self._live = live
        self._settings = settings
        self._traces = Traces()
        self.take = self._traces.take
        self._said = ""

    async def run(self) -> None:
        """aiohttp is imported here, and only here: an agent without a page does without it."""
        try:
            from agent.page.server import Page
        except ModuleNotFoundError as error:
            _log.error(
                f"the page is not served: {error.name} is not installed; install it with: pip install 'holdfast[page]'"
            )
            return
        while True:
            try:
                async with Page(self._live, self._traces, self._settings) as page:
                    self._say_where(page.url)
                    await asyncio.Event().wait()
            except PageError as error:
                if str(error) != self._said:
                    self._said = str(error)
                    _log.warning(self._said)
            await asyncio.sleep(RETRY_S)

    def _say_where(self, url: str) -> None:
        _log.info("the page is served", url=url)
        if not is_local(self._settings.host):
            _log.warning("the page has no login, and others in the network can reach it", host=self._settings.host)


def is_local(host: str) -> bool:
    """Whether only this machine can reach what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
