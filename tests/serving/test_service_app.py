"""The page to try a service, and the description of its endpoints."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from pathlib import Path

import pytest
import uvicorn
from helpers.browser import in_chromium
from helpers.pictures import photo
from helpers.services import client
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

import edgetl.serving
from edgetl._version import __version__
from edgetl.runtime.inference.predictor import Predictor
from edgetl.serving.listening_socket import listen
from edgetl.serving.served_models import ServedModels
from edgetl.serving.service_app import service_app
from edgetl.serving.service_settings import ServiceSettings

FILES = Path(edgetl.serving.__path__[0])
TOKEN = "0123456789abcdef"
PAGE = {"/", "/classify.js", "/page.css", "/classify.css"}


def test_every_endpoint_is_described(tiny_bundle: Path) -> None:
    with client(tiny_bundle) as found:
        described = found.get("/openapi.json").json()
        app = found.app._app  # type: ignore[attr-defined]
        routed = {
            (re.sub(r":\w+}", "}", route.path), method.lower())
            for route in app.routes
            for method in route.methods - {"HEAD"}
        }
    assert described["info"]["version"] == __version__
    listed = {(path, method) for path, item in described["paths"].items() for method in item}
    listed = {(path, method) for path, method in listed if method != "parameters"}
    assert listed == {
        (path, method)
        for path, method in routed
        if path not in {*PAGE, "/openapi.json"} and "{version}" not in path
    }
    named = set(re.findall(r'"#/components/(\w+)/(\w+)"', str(described).replace("'", '"')))
    assert named and all(name in described["components"][kind] for kind, name in named)
    guide = (FILES.parents[1] / "docs/guides/serve.md").read_text("utf-8")
    statuses = set(re.findall(r"\b[2-5]\d\d\b", str(re.findall(r"^\| ([\d, ]+) \|", guide, re.M))))
    posts = [item["post"] for item in described["paths"].values() if "post" in item]
    assert posts and all(post["responses"].keys() == statuses for post in posts)


def test_what_needs_the_token_is_described_so(tiny_bundle: Path) -> None:
    with client(tiny_bundle, token=TOKEN) as found:
        described = found.get("/openapi.json").json()
        for path, item in described["paths"].items():
            for method in {"get", "post"} & item.keys():
                answer = found.request(method, path, headers={"Authorization": ""})
                is_closed = answer.status_code == 401
                assert is_closed == ("401" in item[method]["responses"]), path
                assert is_closed == (item[method].get("security") != []), path


def test_the_page_loads_its_own_files_only(tiny_bundle: Path) -> None:
    with client(tiny_bundle) as found:
        page = found.get("/").text
        assert set(re.findall(r'(?:src|href)="([^"]+)"', page)) == {
            "classify.js",
            "page.css",
            "classify.css",
            "data:,",
        }
        for name in ("classify.js", "page.css", "classify.css"):
            assert found.get(f"/{name}").text == (FILES / name).read_text("utf-8")
            assert "://" not in found.get(f"/{name}").text
        assert not re.search(r"<style|style=|\son\w+=|<script>", page)  # what its policy forbids


class Driven:
    """A service whose page is used by the script ``drive``."""

    def __init__(self, app: ASGIApp, drive: str) -> None:
        self._app, self._drive = app, drive

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response: Response | None = None
        if scope.get("path") == "/":
            page = (FILES / "classify.html").read_text("utf-8")
            response = HTMLResponse(page.replace("</head>", "<script defer src=drive.js></script>"))
        elif scope.get("path") == "/drive.js":
            response = Response(self._drive, media_type="text/javascript")
        await (response or self._app)(scope, receive, send)


@contextmanager
def running(app: ASGIApp) -> Iterator[str]:
    config = uvicorn.Config(app, log_config=None)
    server = uvicorn.Server(config)
    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()


@pytest.mark.parametrize("token", [None, TOKEN])
def test_a_dropped_photo_is_classified_in_a_browser(
    tiny_bundle: Path, tmp_path: Path, token: str | None
) -> None:
    buffer = io.BytesIO()
    picture = photo(5, 60, 40)
    picture.save(buffer, "PNG")
    settings = ServiceSettings({"tiny": tiny_bundle}, {"threads": 1}, token=token)
    models = ServedModels(settings)
    drive = f"""
        const shown = (id) => !document.getElementById(id).hidden;
        const until = async (ready) => {{
          while (!ready()) await new Promise((next) => setTimeout(next, 20));
        }};
        (async () => {{
          await until(() => shown("login") || shown("classify"));
          if (shown("login")) {{
            document.getElementById("token").value = "wrong";
            document.querySelector("#login button").click();
            await until(() => shown("problem"));
            console.log(document.getElementById("problem").textContent);
            document.getElementById("token").value = "{TOKEN}";
            document.querySelector("#login button").click();
            await until(() => shown("classify"));
          }}
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array({list(buffer.getvalue())})], "<i>dog</i>.png"));
          data.items.add(new File(["nothing"], "broken.jpg"));
          document.dispatchEvent(new DragEvent("drop", {{ dataTransfer: data }}));
        }})();"""
    with running(Driven(service_app(settings, models), drive)) as address:
        done = in_chromium(address, tmp_path, "--virtual-time-budget=8000", "--dump-dom")
    shown = unescape(done.stdout.partition('id="answers"')[2])
    expected = Predictor(tiny_bundle)(picture)
    assert f"<h2>{expected.label}</h2>" in shown
    best = [f"{100 * score.confidence:.1f} %" for score in expected.top()]
    assert re.findall(r'class="share">([^<]+)<', shown) == best
    assert ("not the service's token" in done.stderr) == (token is not None)
    assert "Not classified" in shown and "It is not an image" in shown and 'class="failed"' in shown
    assert (
        "<i>dog</i>.png · " in shown and "<i>dog</i>" not in done.stdout
    )  # as text, not as markup
    assert "CONSOLE" not in done.stderr or "(0)" in done.stderr
