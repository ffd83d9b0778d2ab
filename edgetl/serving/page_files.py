"""The files of pages, and headers by which the browser protects a page: it loads its own alone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from edgetl.system.loopback_guard import PROTECTIVE_HEADERS

PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    **PROTECTIVE_HEADERS,
}


def page_routes(page: str) -> list[Route]:
    """Routes to ``page``, its script and its styles, which are files beside this one."""
    files = [f"{page}.js", f"{page}.css", "page.css"]
    return [Route("/", _sent(f"{page}.html")), *(Route(f"/{file}", _sent(file)) for file in files)]


def _sent(name: str) -> Callable[[Request], Awaitable[Response]]:
    file = Path(__file__).with_name(name)

    # Which file it is must not depend on request.url: older versions of Starlette make its path
    # of the Host header, too.
    async def page(_: Request) -> Response:
        return FileResponse(file)

    return page
