"""What the pages of both programs have in common as web servers: headers, host names, files. Needs aiohttp.

A page only reads, shows nothing from elsewhere, and answers only to names that it knows: another site's page could
otherwise get at it through the browser of someone who may (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Awaitable, Callable, Iterable
from importlib.resources import files

from aiohttp import web
from aiohttp.typedefs import Middleware

SHARED = "protocols.program"
SHARED_FILES = ("connection.js", "elements.js", "base.css")

_HEADERS = {
    "Server": "holdfast",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def guard(names: Iterable[str], key: str) -> Middleware:
    """A middleware that refuses all other host names than these, this machine's own and addresses.

    `key`: the setting to which a name would be added.
    """
    known = _own_names() | {name.lower() for name in names}

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        name = _host_name(request.host)
        if not (name in known or _is_address(name)):
            text = f"This page is not known as {name[:100]!r}; add the name to {key} in the configuration.\n"
            return web.Response(status=421, text=text)  # 421 Misdirected Request, RFC 9110
        return await handler(request)

    return middleware


async def add_headers(_: web.Request, response: web.StreamResponse) -> None:
    """For `on_response_prepare`."""
    response.headers.update(_HEADERS)


def add_files(router: web.UrlDispatcher, package: str, names: Iterable[str]) -> None:
    """Serve a package's files in `static`, index.html as /, and those that all pages share."""
    for where, name in [*((package, name) for name in names), *((SHARED, name) for name in SHARED_FILES)]:
        router.add_get("/" if name == "index.html" else f"/{name}", _file(where, name))
    router.add_get("/favicon.ico", _nothing)


def json_response(value: object, status: int = 200) -> web.Response:
    """The value as JSON, not to be kept."""
    body = json.dumps(value).encode()
    headers = {"Cache-Control": "no-store"}
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)


def _file(package: str, name: str) -> Handler:
    content = files(package).joinpath("static", name).read_bytes()
    kind = _KINDS[name[name.rindex(".") :]]

    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=content, content_type=kind, charset="utf-8", headers={"Cache-Control": "no-cache"})

    return handler


async def _nothing(_: web.Request) -> web.Response:
    return web.Response(status=204)


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
