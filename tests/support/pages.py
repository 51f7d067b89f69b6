"""What is true of the pages of both programs: their files, what their answers forbid, what their scripts can make."""

from __future__ import annotations

import re
from collections.abc import Collection
from importlib.resources import files
from pathlib import Path

from aiohttp import ClientSession

from protocols.program.web import SHARED, SHARED_FILES

KINDS = {".css": "text/css", ".js": "text/javascript", ".html": "text/html"}


def static(package: str) -> dict[str, str]:
    """The files of a page, by name."""
    return {entry.name: entry.read_text() for entry in files(package).joinpath("static").iterdir()}


async def files_are_served(session: ClientSession, url: str, package: str) -> None:
    """Its own and those that all pages share, each as what it is."""
    assert set(static(SHARED)) == set(SHARED_FILES)
    for name, text in {**static(package), **static(SHARED)}.items():
        async with session.get(url + ("" if name == "index.html" else name)) as answer:
            assert answer.status == 200
            assert answer.content_type == KINDS[Path(name).suffix]
            assert await answer.text() == text


async def forbids_what_is_not_ours(session: ClientSession, url: str) -> None:
    """Whatever the answer is."""
    async with session.get(url) as answer:
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "aiohttp" not in answer.headers["Server"]


def need_nothing_else(package: str) -> None:
    """No address of anything outside, and nothing that the policy would refuse."""
    every = {**static(package), **static(SHARED)}
    for name, text in every.items():
        bare = text.replace("http://www.w3.org/2000/svg", "")  # a name, not an address
        assert not re.search(r"https?:|//[a-z]+\.|@import|url\(|@font-face", bare), name
        if name.endswith(".js"):
            assert set(re.findall(r'from "([^"]+)"', text)) <= {f"./{other}" for other in every}
    page = every["index.html"]
    assert re.findall(r'(?:src|href)="([^"]+)"', page) == ["base.css", "page.css", "page.js"]
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script[^>]*>[^<]", page)


def only_make_text(package: str, links: Collection[str] = ()) -> None:
    """What a device or a tag is called cannot become HTML where no way to make HTML is used. `links`: what may be."""
    makers = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser|srcdoc"
    runners = r"\beval\(|new Function|setTimeout\(\s*[\"'`]|setAttribute\(|javascript:|import\("
    for name, text in {**static(package), **static(SHARED)}.items():
        if name.endswith(".js"):
            assert not re.search(f"{makers}|{runners}|setHTML", text), name
            for link in links:
                text = text.replace(link, "")
            assert ".href" not in text, name
