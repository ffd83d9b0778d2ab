"""``edgetl serve`` as a process: its port, its clients, its end, and several processes."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import uvicorn
from helpers.pictures import photo
from helpers.services import figures, service

from edgetl.runtime.inference.predictor import Predictor
from edgetl.serving import connection
from edgetl.serving.server import PrintableFormatter


@pytest.fixture(scope="module")
def jpeg() -> bytes:
    buffer = io.BytesIO()
    photo(7, 900, 600).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def running(tiny_bundle: Path) -> Iterator[str]:
    with service(tiny_bundle, "--timeout", "3") as (address, _):
        yield address


def post(address: str, body: bytes) -> Any:
    request = urllib.request.Request(f"{address}/predict", body, {"Content-Type": "image/jpeg"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def get(address: str, path: str) -> str:
    with urllib.request.urlopen(f"{address}/{path}", timeout=30) as answer:
        return str(answer.read().decode())


def raw(address: str) -> socket.socket:
    host, port = address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), 30)


def head(length: int) -> bytes:
    lines = ("POST /predict HTTP/1.1", "Host: localhost", f"Content-Length: {length}", "", "")
    return "\r\n".join(lines).encode()


def test_many_at_once_get_the_answers_of_the_predictor(
    running: str, tiny_bundle: Path, jpeg: bytes
) -> None:
    expected = Predictor(tiny_bundle)(jpeg).to_dict()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: post(running, jpeg), range(40)))
    assert answers == [expected] * 40


def test_slow_and_dead_clients_hold_nobody_up(running: str, jpeg: bytes) -> None:
    slow = [raw(running) for _ in range(20)]
    for number, client in enumerate(slow):
        client.sendall((head(10**6) + b"x" * 1000)[: 20 + 100 * number])
    gone = raw(running)
    gone.sendall(head(len(jpeg)) + jpeg)
    gone.close()
    assert post(running, jpeg)["label"]
    # One that has sent its head is told that it was too slow, in place of waiting for its body.
    assert slow[-1].recv(4096).startswith(b"HTTP/1.1 408 ")
    for client in slow:
        client.close()


async def exchange(port: int, sent: bytes) -> bytes:
    """What comes for ``sent`` until the connection is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    found = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    return found


@asynccontextmanager
async def impatient(
    monkeypatch: pytest.MonkeyPatch, body: bytes, *, seconds: float = 0.3, delay: float = 0
) -> AsyncIterator[tuple[int, Any]]:
    """The port of a server in this process that closes idle connections soon, and the server."""
    monkeypatch.setattr(connection, "_IDLE", seconds)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(delay)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(
            app, http=connection.TimedConnection, lifespan="off", log_config=None
        )
        server = uvicorn.Server(config)
        task = asyncio.create_task(server._serve([listener]))
        yield listener.getsockname()[1], server
        server.should_exit = True
        await task


WHOLE = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def test_a_head_that_does_not_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection in use stays open."""

    async def all_three() -> list[bytes]:
        async with impatient(monkeypatch, b"there", delay=0.8) as (port, _):
            sent = (b"", WHOLE[:20], WHOLE)
            return await asyncio.gather(*(exchange(port, start) for start in sent))

    silent, begun, whole = asyncio.run(all_three())
    assert (silent, begun) == (b"", b"")
    assert b"there" in whole


def test_who_does_not_read_an_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unread() -> None:
        async with impatient(monkeypatch, bytes(32 << 20)) as (port, server):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(WHOLE)
                while not server.server_state.connections:
                    await asyncio.sleep(0.01)
                while server.server_state.connections:
                    await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(unread(), 20))


@pytest.mark.parametrize(
    "start",
    [WHOLE[:-2], b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"],
    ids=["head", "behind a body"],
)
def test_headers_without_an_end_are_not_kept(monkeypatch: pytest.MonkeyPatch, start: bytes) -> None:
    async def answer() -> bytes:
        async with impatient(monkeypatch, b"", seconds=20, delay=3) as (port, server):
            with socket.create_connection(("127.0.0.1", port), 20) as client:
                client.sendall(start)
                while all(one.headers is None for one in server.server_state.connections):
                    await asyncio.sleep(0.01)
                client.sendall(b"Name: value\r\n" * 10_000)
                return await asyncio.to_thread(client.recv, 4096)

    assert b"too long" in asyncio.run(asyncio.wait_for(answer(), 30))


def test_who_asks_for_another_protocol_is_answered_in_this_one(running: str, jpeg: bytes) -> None:
    """As Java's HttpClient asks for HTTP/2, with the body of its request."""
    start, end = head(len(jpeg)).split(b"\r\n\r\n")
    asking = start + b"\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n" + end
    with raw(running) as client:
        client.sendall((asking + jpeg) * 2 + asking)
        client.sendall(jpeg[:1000])
        time.sleep(0.1)
        client.sendall(jpeg[1000:])
        answers = b""
        while answers.count(b'"confidence"') < 3:
            answers += client.recv(4096) or b'"confidence"'
    assert answers.count(b"HTTP/1.1 200 OK") == 3
    for wanted, status in ((b"there:1", b"400"), (b"/predict", b"403")):
        with raw(running) as client:
            client.sendall(b"CONNECT %b HTTP/1.1\r\nHost: there\r\n\r\n" % wanted)
            assert client.recv(4096).startswith(b"HTTP/1.1 %b " % status)


def test_sigterm_ends_it_when_it_has_answered(tiny_bundle: Path, jpeg: bytes) -> None:
    with service(tiny_bundle) as (address, process):
        client = raw(address)
        client.sendall(head(len(jpeg)) + jpeg[:-1])  # is being received
        get(address, "healthz")
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        with pytest.raises(OSError):
            raw(address)
        client.sendall(jpeg[-1:])
        with client, client.makefile("rb") as stream:
            answer = stream.read()
        assert answer.startswith(b"HTTP/1.1 200 ") and b"confidence" in answer
        assert process.wait(30) == -signal.SIGTERM
        assert process.stderr is not None and process.stderr.read() == ""


def test_a_new_bundle_is_served_without_a_restart(
    tiny_bundle: Path, tmp_path: Path, jpeg: bytes
) -> None:
    from helpers import tiny_bundle as bundles

    served = Path(shutil.copytree(tiny_bundle, tmp_path / "pets"))
    new = bundles.write(tmp_path / "new", bundles.card(temperature=9.0))
    expected = Predictor(new)(jpeg).to_dict()
    with service(served) as (address, process):
        assert post(address, jpeg) != expected
        served.rename(tmp_path / "old")
        new.rename(served)
        deadline = time.monotonic() + 20
        while post(address, jpeg) != expected and time.monotonic() < deadline:
            time.sleep(0.1)
        assert post(address, jpeg) == expected
        counted = figures(get(address, "metrics"))
        assert counted['edgetl_reloads_total{model="pets",result="taken"}'] == 1
        process.terminate()
        assert process.stderr is not None and "pets: took the new model" in process.stderr.read()


def test_a_name_of_a_bundle_cannot_steer_the_terminal() -> None:
    record = logging.LogRecord("x", logging.ERROR, "f", 1, "%s: gone", ("\x1b[2Jpets\n花",), None)
    formatted = PrintableFormatter("%(levelname)s %(message)s").format(record)
    assert formatted == "ERROR \\x1b[2Jpets\\n花: gone"


def test_several_processes_share_the_port_and_their_figures(tiny_bundle: Path, jpeg: bytes) -> None:
    expected = Predictor(tiny_bundle)(jpeg).to_dict()
    with service(tiny_bundle, "--workers", "2") as (address, process):
        parent = psutil.Process(process.pid)
        workers = serving(parent)
        for _ in range(10):
            assert post(address, jpeg) == expected
        wait_for_answers(address, 10)  # a request is counted when its answer is on its way
        os.kill(workers[0].pid, signal.SIGKILL)
        for _ in range(10):
            assert post(address, jpeg) == expected
        assert len({worker.pid for worker in serving(parent)} - {workers[0].pid}) == 2
        wait_for_answers(address, 20)
        assert figures(get(address, "metrics"))["edgetl_queue_photos"] == 0
        folder = Path(workers[1].environ()["PROMETHEUS_MULTIPROC_DIR"])
        assert folder.is_dir()
        process.terminate()
        assert process.wait(60) in (0, -signal.SIGTERM)
        assert not folder.exists()
        assert not any(worker.is_running() for worker in workers)


def wait_for_answers(address: str, count: int) -> None:
    """Wait until so many requests are counted, in all processes together; not one more may be."""
    name, deadline = 'edgetl_requests_total{endpoint="predict",status="200"}', time.monotonic() + 30
    while (found := figures(get(address, "metrics")).get(name, 0)) < count:
        assert time.monotonic() < deadline, found
    assert found == count


def serving(parent: psutil.Process) -> list[psutil.Process]:
    """Both child processes that listen."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = [child for child in parent.children() if listens(child)]
        if len(found) == 2:
            return found
        time.sleep(0.1)
    raise AssertionError("there are no two")


def listens(process: psutil.Process) -> bool:
    try:
        connections = process.net_connections("tcp")
    except psutil.Error:
        return False
    return any(one.status == psutil.CONN_LISTEN for one in connections)


def test_it_needs_no_torch(tiny_bundle: Path, jpeg: bytes) -> None:
    code = (
        "import sys\nfrom edgetl.cli.main import main\nsys.argv[0] = 'edgetl'\n"
        "try:\n    main()\nfinally:\n"
        "    print(sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    command = [sys.executable, "-c", code, "serve", str(tiny_bundle), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().rpartition(" ")[2].strip().rstrip("/")
        post(address, jpeg)
        threading.Timer(0.1, process.send_signal, [signal.SIGINT]).start()
        imported = process.stdout.read()
    assert "starlette" in imported
    assert not {"torch", "onnx", "scipy", "matplotlib"} & set(imported.split("'"))


@pytest.mark.skipif(sys.platform != "linux", reason="prlimit is Linux's")
def test_idle_clients_keep_nobody_out(tiny_bundle: Path) -> None:
    """More than it may open files: each closes the one that has been idle for longest.

    Those that have sent a part of a request are not idle. Then others wait, and little is logged.
    """
    import resource

    with service(tiny_bundle) as (address, process):
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (60, 60))
        idle = [raw(address) for _ in range(100)]
        assert "models" in get(address, "healthz")
        assert idle[0].recv(1) == b""
        busy = []
        for _ in range(80):
            busy.append(raw(address))
            busy[-1].sendall(head(10))
            time.sleep(0.02)
        time.sleep(1.5)
        for client in (*idle, *busy):
            client.close()
        assert "models" in get(address, "healthz")
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        assert 1 <= process.stderr.read().count("Too many open files") < 20
