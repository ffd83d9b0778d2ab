"""The server for this machine: whoever is not its own page gets nothing."""

from __future__ import annotations

import os
import signal
import socket
import threading
import urllib.request

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from edgetl.errors import EdgetlError
from edgetl.serving.loopback import LoopbackOnly, serve

ORIGIN = "http://127.0.0.1:8000"


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"hello {request.method}")


APP = Starlette(routes=[Route("/", hello, methods=["GET", "POST"])])


@pytest.fixture
def client() -> TestClient:
    return TestClient(LoopbackOnly(APP, 8000, "secret"), base_url=ORIGIN)


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_its_own_page_is_answered(client: TestClient, name: str) -> None:
    host = f"{name}:8000"
    answer = client.get("/secret/", headers={"host": host})
    assert answer.text == "hello GET"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    answer = client.post("/secret/", headers={"host": host, "origin": f"http://{host}"})
    assert answer.text == "hello POST"


@pytest.mark.parametrize(
    "path", ["/", "/secre/", "/secret", "/secretly/", "/Secret/", "//secret/", "/sécret/"]
)
def test_without_the_token_nothing_is_there(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("host", ["evil.example:8000", "127.0.0.1", "localhost:80", ""])
def test_a_name_that_leads_here_is_refused(client: TestClient, host: str) -> None:
    """DNS rebinding: a page of evil.example, whose name has become this machine's."""
    answer = client.get("/secret/", headers={"host": host})
    assert answer.status_code == 403 and "hello" not in answer.text


@pytest.mark.parametrize(
    "origin", [None, "null", "http://evil.example", "http://127.0.0.1:1", "https://127.0.0.1:8000"]
)
def test_another_page_changes_nothing(client: TestClient, origin: str | None) -> None:
    headers = {} if origin is None else {"origin": origin}
    for method in ("POST", "PUT", "DELETE"):
        assert client.request(method, "/secret/", headers=headers).status_code == 403


def test_it_listens_on_this_machine_alone_until_ctrl_c() -> None:
    found = {}

    def visit(address: str) -> None:
        try:
            with urllib.request.urlopen(address, timeout=30) as page:
                found[address] = page.read()
        finally:  # else it would go on for ever
            os.kill(os.getpid(), signal.SIGINT)

    def on_start(address: str) -> None:
        threading.Thread(target=visit, args=(address,)).start()

    serve(APP, 0, on_start)
    ((address, text),) = found.items()
    assert text == b"hello GET" and address.startswith("http://127.0.0.1:")
    token = address.split("/")[3]
    assert len(token) == 32


def test_a_port_that_is_taken_is_a_clear_error() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(EdgetlError, match=f"Port {port} can't be used") as error:
            serve(APP, port, print)
    assert "--port" in str(error.value.hint)
