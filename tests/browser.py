"""A page in a real browser, and what it does that nobody sees: errors on its console, requests to other machines."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_HERE = ("127.0.0.1", "localhost")
_SECONDS = 60  # for what is waited for, on a machine whose cores are busy


@dataclass
class Watched:
    """A page.

    Attributes:
        page: playwright's.
        errors: what it wrote on its console as errors, and exceptions that nothing caught.
        elsewhere: addresses on other machines that it asked for; none of them was let through.
    """

    page: Any
    errors: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)


@contextmanager
def watched_page(width: int = 1280, height: int = 960) -> Iterator[Watched]:
    """An empty page of the browser that is installed here; the test is skipped where there is none.

    Args:
        width, height: of the window, px.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    if program is None:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as started:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # which it does not start for root
        browser = started.chromium.launch(executable_path=program, args=sandbox)
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(1000 * _SECONDS)
        watched = Watched(page)
        page.on("console", lambda said: watched.errors.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: watched.errors.append(str(error)))
        page.on("websocket", lambda socket: _from_here(socket.url) or watched.elsewhere.append(socket.url))

        def pass_on(route: Any) -> None:
            if _from_here(route.request.url):
                route.continue_()
            else:
                watched.elsewhere.append(route.request.url)
                route.abort()

        page.route("**/*", pass_on)
        yield watched
        browser.close()


def _from_here(address: str) -> bool:
    parts = urlsplit(address)
    return parts.scheme in ("data", "blob") or parts.hostname in _HERE
