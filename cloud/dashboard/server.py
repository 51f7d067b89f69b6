"""The page's HTTP server.

    /              the page                 /api/state     everything as JSON
    /events        changes, as they come    /api/values    ?machine=tenant/province/plant/name&tag=part-of-a-name
    /healthz       whether it is alive      /metrics       for Prometheus

It only reads. Names that it does not know in the Host header are refused: another site's page could otherwise get at
it through the browser of someone who may (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Self

from aiohttp import web
from aiohttp_sse import sse_response

from cloud.dashboard.feed import Feed, TooManyClients
from cloud.dashboard.listening import PageError as PageError
from cloud.dashboard.listening import listen, url
from cloud.dashboard.metrics import metrics
from cloud.dashboard.snapshot import values
from cloud.receiver import ReceiverState
from cloud.settings import HttpSettings
from cloud.store.contract import StoreError
from cloud.worker import StoreWorker
from protocols.program.version import program_version
from protocols.uplink.topics import MachineTopic, Plant, is_name

SEND_TIMEOUT_S = 15.0
"""A client that takes nothing for this long is let go."""

SHUTDOWN_S = 2.0
TAG_MAX = 200

_HEADERS = {
    "Server": "holdfast",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_SCRIPTS = ("page", "receiver", "completeness", "gateways", "machines", "values", "elements")
_FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    **{f"/{name}.js": (f"{name}.js", "text/javascript") for name in _SCRIPTS},
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Page:
    """An async context manager: listens inside. `run` keeps the clients up to date; `changed` after each commit."""

    def __init__(self, store: StoreWorker, receiver: ReceiverState, http: HttpSettings) -> None:
        self._http = http
        self._receiver = receiver
        self._feed = Feed(store, receiver)
        self._hosts = _own_names() | {http.host.lower(), *(name.lower() for name in http.names)}
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
        listening = listen(self._http.host, self._http.port)
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
        application.on_response_prepare.append(_add_headers)
        for path, (name, kind) in _FILES.items():
            application.router.add_get(path, _file(name, kind))
        application.router.add_get("/events", self._events, allow_head=False)
        application.router.add_get("/api/state", self._state)
        application.router.add_get("/api/values", self._values)
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/metrics", self._metrics)
        application.router.add_get("/favicon.ico", _nothing)
        return application

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        name = _host_name(request.host)
        if not (name in self._hosts or _is_address(name)):
            text = f"This page is not known as {name[:100]!r}; add the name to http.names in the configuration.\n"
            return web.Response(status=421, text=text)  # 421 Misdirected Request, RFC 9110
        return await handler(request)

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
        return _json(snapshot.state)

    async def _values(self, request: web.Request) -> web.Response:
        parts = request.query.get("machine", "").split("/")
        tag = request.query.get("tag", "")
        if len(parts) != 4 or not all(map(is_name, parts)) or len(tag) > TAG_MAX:
            return _json({"error": "ask with machine=tenant/province/plant/name, and tag= a part of a name"}, 400)
        try:
            latest = await self._feed.latest(MachineTopic(Plant(*parts[:3]), parts[3]))
        except StoreError as error:
            return _json({"error": str(error)}, 503)
        return _json(values(latest, tag))

    async def _healthz(self, _: web.Request) -> web.Response:
        """The receiver is well as long as it answers: broker and database may be away, a restart would not help."""
        return _json(
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


def _file(name: str, kind: str) -> Handler:
    content = files("cloud.dashboard").joinpath("static", name).read_bytes()

    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=content, content_type=kind, charset="utf-8", headers={"Cache-Control": "no-cache"})

    return handler


async def _nothing(_: web.Request) -> web.Response:
    return web.Response(status=204)


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)


def _json(value: object, status: int = 200) -> web.Response:
    body = json.dumps(value).encode()
    headers = {"Cache-Control": "no-store"}
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)


def _own_names() -> set[str]:
    name = socket.gethostname().lower()
    return {"localhost", name, name.partition(".")[0]}


def _host_name(host: str) -> str:
    """The Host header without its port."""
    name = host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0]
    return name.lower().strip("[]").removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
