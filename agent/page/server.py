"""The page's HTTP server. It only reads, and nobody's question reaches a device.

    /              the page                 /api/state     one view as JSON
    /events        a view every second      /api/plot      ?device=press-plc&tag=pressure&after=microseconds
    /healthz       whether it is alive

`/events` and `/api/state` take filter=, wrong=1, offset= and limit=. A browser that reads slowly gets fewer views:
nothing is queued for anybody, and one that takes nothing is let go.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Self

from aiohttp import web
from aiohttp_sse import sse_response
from pydantic import ValidationError

from agent.live.live import Live
from agent.live.query import Query
from agent.page.traces import Traces
from agent.settings import PageSettings
from protocols.program.listening import PageError as PageError
from protocols.program.listening import listen, url
from protocols.program.web import add_files, add_headers, guard, json_response
from protocols.uplink.status import first_fault

CLIENTS_MAX = 8
PERIOD_S = 1.0
SEND_TIMEOUT_S = 15.0
"""A browser that takes nothing for this long is let go."""

SHUTDOWN_S = 1.0
NAME_MAX = 200
_FILES = ("index.html", "page.css", "page.js", "line.js", "values.js", "plot.js")


class Page:
    """An async context manager: listens inside. `look` makes a view, `traces` knows every reading of a few tags."""

    def __init__(self, live: Live, traces: Traces, settings: PageSettings) -> None:
        self._live = live
        self._traces = traces
        self._settings = settings
        self._guard = guard({settings.host, *settings.names}, "page.names")
        self._runner: web.AppRunner | None = None
        self._closing = asyncio.Event()
        self.clients = 0
        self.url = ""

    async def __aenter__(self) -> Self:
        """Raises PageError."""
        listening = listen(self._settings.host, self._settings.port, page="the agent's page", key="page")
        self.url = url(self._settings.host, listening)
        self._runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=SHUTDOWN_S)
        await self._runner.setup()
        await web.SockSite(self._runner, listening).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing.set()
        if self._runner is not None:
            await self._runner.cleanup()

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[self._guard])
        application.on_response_prepare.append(add_headers)
        add_files(application.router, "agent.page", _FILES)
        application.router.add_get("/events", self._events, allow_head=False)
        application.router.add_get("/api/state", self._state)
        application.router.add_get("/api/plot", self._plot)
        application.router.add_get("/healthz", self._healthz)
        return application

    async def _state(self, request: web.Request) -> web.Response:
        return _answered(request, lambda query: json_response(self._live.look(query)))

    async def _events(self, request: web.Request) -> web.StreamResponse:
        try:
            query = _query(request)
        except ValidationError as error:
            return json_response({"error": first_fault(error)}, 400)
        if self.clients >= CLIENTS_MAX:
            return web.Response(status=503, headers={"Retry-After": "30"}, text="Too many browsers look already.\n")
        self.clients += 1
        try:
            return await self._stream(request, query)
        finally:
            self.clients -= 1

    async def _stream(self, request: web.Request, query: Query) -> web.StreamResponse:
        async with sse_response(request, send_timeout=SEND_TIMEOUT_S) as response:
            try:
                while not self._closing.is_set():
                    await response.send(json.dumps(self._live.look(query)), event="view")
                    await _happens(self._closing, PERIOD_S)
            except (ConnectionResetError, TimeoutError):
                pass  # the browser has gone, or takes nothing any more
        return response

    async def _plot(self, request: web.Request) -> web.Response:
        device, tag = request.query.get("device", ""), request.query.get("tag", "")
        after = request.query.get("after", "0")
        found = self._live.values.group(device, tag) if len(device) + len(tag) <= NAME_MAX else None
        if found is None or not after.isdecimal() or len(after) > 18:
            return json_response(
                {"error": "ask with device= and tag= of the configuration, and after=microseconds"}, 400
            )
        return json_response({"points": self._traces.points(*found, int(after), time.monotonic())})

    async def _healthz(self, _: web.Request) -> web.Response:
        """The agent is well as long as it answers: what is away does not come back by a restart."""
        view = self._live.look(Query(limit=0))
        return json_response({"status": "ok", "line": {one["name"]: one["mark"] for one in view["line"]}})


def _query(request: web.Request) -> Query:
    """Raises ValidationError."""
    return Query.model_validate(dict(request.query))


def _answered(request: web.Request, answer: Callable[[Query], web.Response]) -> web.Response:
    try:
        return answer(_query(request))
    except ValidationError as error:
        return json_response({"error": first_fault(error)}, 400)


async def _happens(event: asyncio.Event, within_s: float) -> None:
    try:
        async with asyncio.timeout(within_s):
            await event.wait()
    except TimeoutError:
        pass
