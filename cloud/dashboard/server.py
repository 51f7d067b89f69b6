"""The page's HTTP server.

    /              the page                 /api/state     everything as JSON
    /events        changes, as they come    /api/values    ?machine=tenant/province/plant/name&tag=part-of-a-name
    /healthz       whether it is alive      /metrics       for Prometheus

It only reads. Names that it does not know in the Host header are refused: another site's page could otherwise get at
it through the browser of someone who may (DNS rebinding).
"""

from __future__ import annotations

from typing import Self

from aiohttp import web
from aiohttp_sse import sse_response

from cloud.dashboard.feed import Feed, TooManyClients
from cloud.dashboard.metrics import metrics
from cloud.dashboard.snapshot import values
from cloud.receiver import ReceiverState
from cloud.settings import HttpSettings
from cloud.store.contract import StoreError
from cloud.worker import StoreWorker
from protocols.program.listening import PageError as PageError
from protocols.program.listening import listen, url
from protocols.program.version import program_version
from protocols.program.web import add_files, add_headers, guard, json_response
from protocols.uplink.topics import MachineTopic, Plant, is_name

SEND_TIMEOUT_S = 15.0
"""A client that takes nothing for this long is let go."""

SHUTDOWN_S = 2.0
TAG_MAX = 200

_FILES = (
    "index.html",
    "page.css",
    "page.js",
    "receiver.js",
    "completeness.js",
    "gateways.js",
    "machines.js",
    "values.js",
)


class Page:
    """An async context manager: listens inside. `run` keeps the clients up to date; `changed` after each commit."""

    def __init__(self, store: StoreWorker, receiver: ReceiverState, http: HttpSettings) -> None:
        self._http = http
        self._receiver = receiver
        self._feed = Feed(store, receiver)
        self._guard = guard({http.host, *http.names}, "http.names")
        self._runner: web.AppRunner | None = None
        self.url = ""

    def changed(self) -> None:
        """Something was stored."""
        self._feed.changed()

    async def run(self) -> None:
        """Until cancelled."""
        await self._feed.run()

    async def __aenter__(self) -> Self:
        """Raises PageError."""
        self._runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=SHUTDOWN_S)
        listening = listen(self._http.host, self._http.port, page="operators' page", key="http")
        self.url = url(self._http.host, listening)
        await self._runner.setup()
        await web.SockSite(self._runner, listening).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._feed.close()
        if self._runner is not None:
            await self._runner.cleanup()

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[self._guard])
        application.on_response_prepare.append(add_headers)
        add_files(application.router, "cloud.dashboard", _FILES)
        application.router.add_get("/events", self._events, allow_head=False)
        application.router.add_get("/api/state", self._state)
        application.router.add_get("/api/values", self._values)
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/metrics", self._metrics)
        return application

    async def _events(self, request: web.Request) -> web.StreamResponse:
        try:
            with self._feed.client():
                return await self._stream(request)
        except TooManyClients:
            return web.Response(status=503, headers={"Retry-After": "30"}, text="Too many browsers look already.\n")

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        async with sse_response(request, send_timeout=SEND_TIMEOUT_S) as response:
            seen = None
            try:
                while (snapshot := await self._feed.newer(seen)) is not None:
                    await response.send(self._feed.told(seen, snapshot), event="change" if seen else "state")
                    seen = snapshot
            except (ConnectionResetError, TimeoutError):
                pass  # the browser has gone, or takes nothing any more
        return response

    async def _state(self, _: web.Request) -> web.Response:
        snapshot = await self._feed.fresh()
        return json_response(snapshot.state)

    async def _values(self, request: web.Request) -> web.Response:
        parts = request.query.get("machine", "").split("/")
        tag = request.query.get("tag", "")
        if len(parts) != 4 or not all(map(is_name, parts)) or len(tag) > TAG_MAX:
            return json_response(
                {"error": "ask with machine=tenant/province/plant/name, and tag= a part of a name"}, 400
            )
        try:
            latest = await self._feed.latest(MachineTopic(Plant(*parts[:3]), parts[3]))
        except StoreError as error:
            return json_response({"error": str(error)}, 503)
        return json_response(values(latest, tag))

    async def _healthz(self, _: web.Request) -> web.Response:
        """The receiver is well as long as it answers: broker and database may be away, a restart would not help."""
        return json_response(
            {
                "status": "ok",
                "version": program_version(),
                "broker": "away" if self._receiver.listening_since_us is None else "connected",
                "store": "away" if self._receiver.store_trouble else "ok",
            }
        )

    async def _metrics(self, _: web.Request) -> web.Response:
        text = metrics((await self._feed.fresh()).state)
        return web.Response(body=text.encode(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})
