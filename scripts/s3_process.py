"""An S3 server on this machine for the other scripts: moto's, in a process of its own.

It can be told to answer 503 to everything, and to keep writers of parts waiting, so that something
happens at a known point of a run.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import tarfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

BUCKET = "photos"
NO_LIMIT = 1 << 30
_BUSY = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
_SPAWN = multiprocessing.get_context("spawn")


class S3Process:
    """What the server is told, and what it counts; shared with its process.

    busy      while it is set, every request is answered with 503
    limit     how many parts may be written before writers of others wait
    requests  that were received
    refused   that were answered with 503
    parts     files that were written whose names begin as those of parts do
    """

    def __init__(self) -> None:
        self.busy = _SPAWN.Event()
        self.limit = _SPAWN.Value("q", NO_LIMIT)
        self.requests = _SPAWN.Value("q", 0)
        self.refused = _SPAWN.Value("q", 0)
        self.parts = _SPAWN.Value("q", 0)
        self.port = _SPAWN.Value("i", 0)

    def serve(self) -> None:
        """Run the server, in its own process."""
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Quiet(WSGIRequestHandler):
            def log(self, *_: object) -> None:
                pass

        answer_of: WSGIApplication = DomainDispatcherApplication(create_backend_app)
        parts: set[str] = set()
        one_writer = threading.Lock()  # moto fails where two write the same object

        def answer(environment: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
            _add_one(self.requests)
            path = environment["PATH_INFO"]
            is_part = environment["REQUEST_METHOD"] == "PUT" and "/part-" in path
            while is_part and path not in parts and len(parts) >= self.limit.value:
                time.sleep(0.05)
            if self.busy.is_set():
                _add_one(self.refused)
                environment["wsgi.input"].read(int(environment.get("CONTENT_LENGTH") or 0))
                start("503 Slow Down", [("Content-Length", str(len(_BUSY)))])
                return [_BUSY]
            if not is_part:
                return answer_of(environment, start)
            with one_writer:
                found = answer_of(environment, start)
            parts.add(path)
            self.parts.value = len(parts)
            return found

        listener = make_server("127.0.0.1", 0, answer, threaded=True, request_handler=Quiet)
        self.port.value = listener.port
        threading.Thread(target=_end_with_parent, daemon=True).start()
        listener.serve_forever()


@contextmanager
def s3_process() -> Iterator[S3Process]:
    """The server, with the empty bucket ``BUCKET``; the environment names it."""
    store = S3Process()
    process = _SPAWN.Process(target=store.serve, daemon=True)
    process.start()
    try:
        while not store.port.value:
            process.join(0.1)
            if process.exitcode is not None:
                raise RuntimeError("the S3 server did not start")
        os.environ.update(
            AWS_ENDPOINT_URL=f"http://127.0.0.1:{store.port.value}",
            AWS_ACCESS_KEY_ID="any",
            AWS_SECRET_ACCESS_KEY="any",
            AWS_DEFAULT_REGION="us-east-1",
        )
        owner().create_bucket(Bucket=BUCKET)
        yield store
    finally:
        process.kill()
        process.join()


def tar_of(photos: Iterable[tuple[str, bytes]]) -> bytes:
    """A tar shard of photos (name, content)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as shard:
        for name, content in photos:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def owner() -> Any:
    """A client that may write."""
    import boto3

    return boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])


def _end_with_parent() -> None:
    """For a parent that is killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _add_one(counter: Any) -> None:
    with counter.get_lock():
        counter.value += 1
