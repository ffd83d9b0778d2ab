"""A page in a headless Chromium or Firefox, without a driver library.

The page comes from a server on the loopback interface, asks it for jobs and posts answers back. The
browser has a fresh profile and reaches nothing but this machine.
"""

from __future__ import annotations

import json
import mimetypes
import os
import queue
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from edgetl.errors import RuntimeUnavailableError
from edgetl.system.child_process import ending_with_stdin, kill_child, start_child
from edgetl.system.loopback_guard import LOOPBACK, PROTECTIVE_HEADERS, LoopbackGuard, new_token

PROGRAMS = {
    "chromium": (
        "chromium",
        "chromium-browser",
        "google-chrome",
        "chrome",
        "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    ),
    "firefox": ("firefox", "firefox-esr", "/Applications/Firefox.app/Contents/MacOS/firefox"),
}
JOB, ANSWER = "job", "answer"  # where a page asks and posts, relative to its own address
_POLL = 20.0  # seconds until a page that waits for a job asks again
_CONSOLE = {
    "chromium": re.compile(r'CONSOLE[:(]\d+\)?\] (".*?", source: .*?\(\d+\))$', re.S | re.M),
    # Firefox's own scripts write there, too, but put no strings into quotation marks.
    "firefox": re.compile(r'^(console\.\w+: ["(].*|JavaScript \w+: http://127.*)$', re.M),
}
_NOWHERE = f"{LOOPBACK}:9"  # a proxy that does not exist; the loopback interface needs none
_CHROMIUM_OPTIONS = (
    "--headless=new",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-gpu",
    "--disable-sync",
    "--enable-logging=stderr",
    f"--proxy-server={_NOWHERE}",
)
_FIREFOX_PREFERENCES = {
    "app.normandy.enabled": False,
    "app.update.enabled": False,
    "browser.dom.window.dump.enabled": True,
    "browser.safebrowsing.update.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.homepage_override.mstone": "ignore",
    "datareporting.policy.dataSubmissionEnabled": False,
    "devtools.console.stdout.content": True,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "network.proxy.http": LOOPBACK,
    "network.proxy.http_port": 9,
    "network.proxy.ssl": LOOPBACK,
    "network.proxy.ssl_port": 9,
    "network.proxy.type": 1,
    "toolkit.telemetry.enabled": False,
}


def find_browser(browser: str) -> str:
    """The program of "chromium" or "firefox". Raises RuntimeUnavailableError."""
    for program in PROGRAMS[browser]:
        if found := shutil.which(program):
            return found
    names = ", ".join(name for name in PROGRAMS[browser] if "/" not in name)
    package = "firefox-esr" if browser == "firefox" else browser
    raise RuntimeUnavailableError(
        f"None of these programs is on PATH: {names}.",
        f"Install one: on Debian, `apt-get install {package}`.",
    )


class BrowserPage:
    """A page that is open in a browser until ``close``, or the end of a ``with`` block.

    The page may ``fetch("job")``, which waits for a ``send`` (204: none yet, ask again), and post
    bytes to "answer", which ``receive`` returns.
    """

    def __init__(
        self,
        browser: str,
        folder: Path,
        start: str,
        *,
        pages: Mapping[str, bytes] | None = None,
        options: Sequence[str] = (),
        preferences: Mapping[str, Any] | None = None,
    ) -> None:
        """Start the browser; it may take seconds until the page is there.

        browser      "chromium" or "firefox"
        folder       what the server serves
        start        the page to open: its address in ``folder`` or ``pages``, with a query or not
        pages        files beside those of ``folder``, in front of them
        options      of Chromium's command line
        preferences  of Firefox

        Raises RuntimeUnavailableError without the browser.
        """
        program = find_browser(browser)
        self._pattern = _CONSOLE[browser]
        self._server = _Server(folder, pages or {})
        self._profile = tempfile.TemporaryDirectory(
            prefix="edgetl-browser-", ignore_cleanup_errors=True
        )
        profile = Path(self._profile.name)
        self._output = profile / "output.txt"
        url = self._server.address + start
        if browser == "chromium":
            sandbox = ["--no-sandbox"] if getattr(os, "geteuid", lambda: 1)() == 0 else []
            command = [*_CHROMIUM_OPTIONS, *sandbox, f"--user-data-dir={profile}", *options, url]
        else:
            settings = {**_FIREFOX_PREFERENCES, **(preferences or {})}
            lines = (
                f"user_pref({json.dumps(name)}, {json.dumps(value)});\n"
                for name, value in settings.items()
            )
            (profile / "user.js").write_text("".join(lines), encoding="utf-8")
            command = ["--headless", "--no-remote", "--profile", str(profile), url]
        with self._output.open("wb") as output:
            self._process = start_child(
                ending_with_stdin([program, *command]),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                environment={"HOME": str(profile), "MOZ_CRASHREPORTER_DISABLE": "1"},
            )
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> BrowserPage:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    @property
    def address(self) -> str:
        """Where ``folder`` is served, with the last slash."""
        return self._server.address

    def send(self, job: bytes) -> None:
        """What one ``fetch("job")`` gets."""
        self._server.jobs.put(job)

    def receive(self, seconds: float) -> bytes:
        """The body of the next post to "answer".

        Raises RuntimeError with what stands in the console if there is none within ``seconds``, or
        the browser has ended.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                return self._server.answers.get(timeout=0.2)
            except queue.Empty:
                if self._process.poll() is not None:
                    raise self._error("the browser ended") from None
        raise self._error(f"the page did not answer within {seconds:g} seconds")

    def console(self) -> list[str]:
        """Messages and uncaught errors in the page's console so far."""
        text = self._output.read_text(encoding="utf-8", errors="replace")
        return self._pattern.findall(text)

    def close(self) -> None:
        """Kill the browser, with all its processes, and remove its profile."""
        kill_child(self._process)
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._server.shutdown()
        self._server.server_close()
        self._profile.cleanup()

    def _error(self, what: str) -> RuntimeError:
        console = self.console()
        return RuntimeError(f"{what}; its console: {'; '.join(console[-3:])}" if console else what)


class _Server(ThreadingHTTPServer):
    """Serves a folder, jobs and answers to one page on the loopback interface."""

    block_on_close = False  # one may wait for a job

    def __init__(self, folder: Path, pages: Mapping[str, bytes]) -> None:
        super().__init__((LOOPBACK, 0), _Handler)
        self.folder, self.pages = folder.resolve(), pages
        self.jobs: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.guard = LoopbackGuard(self.server_port, new_token())
        self.address = f"http://{LOOPBACK}:{self.server_port}{self.guard.root}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that is killed closes its connections, which is no error."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # a body that follows its headers would wait for 40 ms

    def do_GET(self) -> None:
        if (name := self._allowed()) is None:
            return
        if name == JOB:
            try:
                self._reply(200, self.server.jobs.get(timeout=_POLL))
            except queue.Empty:
                self._reply(204, b"")
            return
        content = self.server.pages.get(name)
        if content is None:
            path = (self.server.folder / name).resolve()
            if not path.is_relative_to(self.server.folder) or not path.is_file():
                self._reply(404, b"Not found.")
                return
            content = path.read_bytes()
        self._reply(200, content, _media_type(name))

    def do_POST(self) -> None:
        name = self._allowed()
        if name is None:
            return
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if name == ANSWER:
            self.server.answers.put(body)
        self._reply(204 if name == ANSWER else 404, b"")

    def _allowed(self) -> str | None:
        """The path below the token; None: the request was refused."""
        path, guard = unquote(urlsplit(self.path).path), self.server.guard
        host, origin = self.headers.get("host", ""), self.headers.get("origin")
        if refused := guard.refusal(self.command, path, host, origin):
            self.close_connection = True  # its body is not read
            self._reply(refused[0], refused[1].encode())
            return None
        return path.removeprefix(guard.root + "/")

    def _reply(self, status: int, body: bytes, kind: str = "application/octet-stream") -> None:
        self.send_response(status)
        for header, value in PROTECTIVE_HEADERS.items():
            self.send_header(header, value)
        if status != 204:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *details: object) -> None:
        """Requests are not logged."""


def _media_type(name: str) -> str:
    """Of a file; those on which a browser insists don't depend on the system's table."""
    known = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"}
    suffix = Path(name).suffix
    return known.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
