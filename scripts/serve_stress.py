"""`edgetl serve` under a load that is partly broken: is every answer right, and is memory constant?

python scripts/serve_stress.py exported/pets photos/
python scripts/serve_stress.py exported/pets photos/ --requests 2000 --reloads 5

1. Requests from many connections, a tenth of them broken or cut off. Those that are refused since
   photos of clients that have gone still wait are sent again.
2. The bundle is replaced again and again under load: not one request may fail.
3. One of two processes is killed under load: only its own requests may be lost.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

from soak import resident

from edgetl import Predictor
from edgetl.errors import ImageError
from edgetl.runtime.bundle.bundle_folder import MANIFEST, Bundle, manifest_bytes
from edgetl.runtime.images.discovery import find_images
from edgetl.runtime.results.records import as_record

CONNECTIONS = 64
BROKEN = 0.1  # share of requests
MOST_GROWTH = 0.10  # of resident memory in the second half
FEW_RELOADS = 50  # in which the allocator still finds its size: memory is then not judged
PATIENCE = 120.0  # seconds for an answer, and for a model to be taken

Answer = tuple[int, dict[str, Any]]


class Client:
    """A connection that is opened again when it was closed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        return self._streams

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None

    async def ask(self, body: bytes) -> Answer:
        """Status and JSON. Raises OSError or EOFError if the connection is lost."""
        reader, writer = await self.open()
        try:
            writer.write(head(len(body)) + body)
            async with asyncio.timeout(PATIENCE):
                lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
                headers = dict(line.split(": ", 1) for line in lines[1:] if line)
                content = await reader.readexactly(int(headers["content-length"]))
        except BaseException:
            self.close()
            raise
        if headers.get("connection") == "close":
            self.close()
        return int(lines[0].split()[1]), json.loads(content)

    async def break_off(self, body: bytes) -> None:
        """Send a part of a request, or nonsense, and go; or send all of it and do not listen."""
        with suppress(OSError):
            _, writer = await self.open()
            whole = head(len(body)) + body
            cut = random.choice((0, 20, len(whole) // 2, len(whole) - 1, len(whole)))
            writer.write(random.choice((whole[:cut], b"\x16\x03\x01" + whole[:cut])))
            await writer.drain()
        self.close()


def head(length: int) -> bytes:
    lines = ("POST /predict HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {length}", "", "")
    return "\r\n".join(lines).encode()


@asynccontextmanager
async def running(bundle: Path, *options: str) -> AsyncIterator[tuple[int, int]]:
    """Port and process of ``edgetl serve``."""
    command = [sys.executable, "-m", "edgetl", "serve", str(bundle), "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = await asyncio.to_thread(process.stdout.readline)
        try:
            yield int(line.strip().rstrip("/").rpartition(":")[2]), process.pid
        finally:
            process.terminate()


def expected_answers(bundle: Path, photos: list[bytes]) -> list[Answer]:
    predictor, answers = Predictor(bundle, threads=1), []
    for photo in photos:
        try:
            answers.append((200, as_record(predictor(photo))))
        except ImageError as error:
            answers.append((422, as_record(error)))
    return answers


class Load:
    """Requests from all connections at once; ``counts`` tells what came of them."""

    def __init__(self, port: int, photos: list[bytes], expected: list[Answer]) -> None:
        self._port, self._photos, self._expected = port, photos, expected
        self.counts: Counter[str] = Counter()

    async def run(self, goes_on: Callable[[], bool], broken: float = 0.0) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(CONNECTIONS):
                group.create_task(self._connection(goes_on, broken))

    async def _connection(self, goes_on: Callable[[], bool], broken: float) -> None:
        client = Client(self._port)
        while goes_on():
            index = random.randrange(len(self._photos))
            self.counts["sent"] += 1
            if random.random() < broken:
                await client.break_off(self._photos[index])
                self.counts["broken off"] += 1
                continue
            try:
                while (answer := await client.ask(self._photos[index]))[0] == 503:
                    self.counts["asked again"] += 1
                    await asyncio.sleep(0.1)
            except (OSError, EOFError) as error:
                self.counts["lost"] += 1
                if self.counts["lost"] <= 3:
                    print(f"lost: {error!r}", flush=True)
                continue
            self.counts["right" if answer == self._expected[index] else "wrong"] += 1
            if answer != self._expected[index] and self.counts["wrong"] <= 3:
                print(f"wrong: {answer}", flush=True)
        client.close()


async def many_requests(bundle: Path, photos: list[bytes], requests: int) -> bool:
    expected = expected_answers(bundle, photos)
    async with running(bundle) as (port, process):
        load = Load(port, photos, expected)
        await load.run(lambda: load.counts["sent"] < requests // 2, BROKEN)
        before, start = resident(process), time.monotonic()
        await load.run(lambda: load.counts["sent"] < requests, BROKEN)
        growth = resident(process) / before - 1
        rate = 0.5 * requests / (time.monotonic() - start)
    print(f"{dict(load.counts)}, {rate:.0f} a second, {before / 1e6:.0f} MB, {growth:+.1%}")
    return not (load.counts["wrong"] or load.counts["lost"] or growth > MOST_GROWTH)


def variant(bundle: Path, number: int) -> str:
    """Give the model another checksum and the same answers; returns its version.

    The description of a model is the last field of the file that counts.
    """
    text = f"{number:08}".encode()
    file = bundle / "model.onnx"
    content = file.read_bytes() + bytes([0x32, len(text)]) + text
    digest = hashlib.sha256(content).hexdigest()
    file.write_bytes(content)
    manifest = dict(Bundle.open(bundle).manifest)
    entry = {"sha256": digest, "bytes": len(content)}
    manifest["files"] = {**manifest["files"], "model.onnx": entry}
    (bundle / MANIFEST).write_bytes(manifest_bytes(manifest))
    return digest[:16]


async def reloads(bundle: Path, photos: list[bytes], count: int, folder: Path) -> bool:
    """Replace the bundle under load, as an export does it."""
    served = folder / "served"
    shutil.copytree(bundle, served)
    done = False
    async with running(served) as (port, process):
        load = Load(port, photos, expected_answers(bundle, photos))
        loading = asyncio.create_task(load.run(lambda: not done))
        await asyncio.sleep(2)
        before, start, taken = resident(process), time.monotonic(), 0
        for number in range(count):
            new = Path(shutil.copytree(bundle, folder / "new"))
            version = variant(new, number)
            served.rename(folder / "old")
            new.rename(served)
            shutil.rmtree(folder / "old")
            taken += await is_taken(port, version)
            if number == count // 2:
                before = resident(process)
        done = True
        await loading
        growth = resident(process) / before - 1
    seconds = (time.monotonic() - start) / count
    print(f"{taken} of {count} reloads, {seconds:.1f} s each, {dict(load.counts)}, {growth:+.1%}")
    flat = growth < MOST_GROWTH or count < FEW_RELOADS
    return taken == count and load.counts["sent"] == load.counts["right"] and flat


async def is_taken(port: int, version: str) -> bool:
    """Whether the service has that version before the patience ends."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        content = await reader.read()
        writer.close()
        if version.encode() in content:
            return True
        await asyncio.sleep(0.1)
    return False


async def killed_worker(bundle: Path, photos: list[bytes]) -> bool:
    """Kill one of two processes; at most one request of each of its connections may be lost."""
    done = False
    async with running(bundle, "--workers", "2") as (port, process):
        load = Load(port, photos, expected_answers(bundle, photos))
        loading = asyncio.create_task(load.run(lambda: not done))
        while load.counts["right"] < 10 * CONNECTIONS:
            await asyncio.sleep(0.1)
        workers = workers_of(process)
        os.kill(workers[0], signal.SIGKILL)
        await asyncio.sleep(0.2)
        lost, before = load.counts["lost"], load.counts["right"]
        while load.counts["right"] < before + 10 * CONNECTIONS or len(workers_of(process)) < 2:
            await asyncio.sleep(0.1)
        done = True
        await loading
    print(f"one of two processes killed: {dict(load.counts)}")
    is_last = load.counts["lost"] == lost
    return load.counts["wrong"] == 0 and 1 <= lost <= CONNECTIONS and is_last


def workers_of(process: int) -> list[int]:
    """The processes that serve, without the one that multiprocessing keeps for itself."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [
        int(child)
        for child in children
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--reloads", type=int, default=200)
    arguments = parser.parse_args()
    photos = [file.read_bytes() for file in islice(find_images(arguments.photos), 100)]
    photos += [b"no photo", photos[0][: len(photos[0]) // 2], b""]
    random.seed(0)
    with tempfile.TemporaryDirectory() as folder:
        passed = [
            asyncio.run(many_requests(arguments.bundle, photos, arguments.requests)),
            asyncio.run(reloads(arguments.bundle, photos, arguments.reloads, Path(folder))),
            asyncio.run(killed_worker(arguments.bundle, photos)),
        ]
    print("passed" if all(passed) else f"FAILED: {passed}")
    sys.exit(not all(passed))


if __name__ == "__main__":
    main()
