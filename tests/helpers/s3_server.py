"""An S3 server in this process: moto's, that can be told to answer 503."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
import s3fs
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from edgetl.system import remote_store

Start = Callable[..., Any]
_BUSY = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


class S3Server:
    """A server with its requests; what boto3 does as its owner is in ``client``.

    busy     how many of the next requests of ``refused`` are answered with 503
    refused  methods, such as "GET"
    log      (method, path) of each request
    """

    def __init__(self) -> None:
        self.busy = 0
        self.refused: tuple[str, ...] = ("GET",)
        self.log: list[tuple[str, str]] = []
        self._app = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environment: dict[str, Any], start: Start) -> Iterable[bytes]:
        self.log.append((environment["REQUEST_METHOD"], environment["PATH_INFO"]))
        if environment["REQUEST_METHOD"] in self.refused and self.busy > 0:
            self.busy -= 1
            start("503 Slow Down", [("Content-Length", str(len(_BUSY)))])
            return [_BUSY]
        found: Iterable[bytes] = self._app(environment, start)
        return found

    def owner(self, address: str) -> Any:
        """A client that may write."""
        return boto3.client(
            "s3",
            endpoint_url=address,
            region_name="us-east-1",
            aws_access_key_id="owner",
            aws_secret_access_key="secret",
        )


class _Quiet(WSGIRequestHandler):
    def log(self, *_: object) -> None:
        pass


@contextmanager
def use_s3_server(
    running: tuple[S3Server, str], monkeypatch: pytest.MonkeyPatch, empty: Path
) -> Iterator[S3Server]:
    """The server, as the environment names it to S3's packages, with credentials.

    It is not busy, has logged nothing, and is tried again without delay.

    running  as ``s3_server`` yields it
    empty    a folder without those packages' files
    """
    server, address = running
    s3fs.S3FileSystem.clear_instance_cache()  # else it would keep another test's credentials
    values = {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "reader",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(empty / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(empty / "none"),
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(remote_store, "PAUSES", (0.01,) * 5)
    monkeypatch.setattr(remote_store, "PATIENT_PAUSES", (0.01,) * 9)
    server.busy = 0
    server.log.clear()
    yield server
    s3fs.S3FileSystem.clear_instance_cache()


@contextmanager
def s3_server() -> Iterator[tuple[S3Server, str]]:
    """(server, its address)"""
    server = S3Server()
    listener = make_server("127.0.0.1", 0, server, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=listener.serve_forever, daemon=True)
    thread.start()
    try:
        yield server, f"http://127.0.0.1:{listener.port}"
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()
