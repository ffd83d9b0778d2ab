"""Photos from a web server, which may not know parts of files, and may be away for a while."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from helpers.pictures import photo
from helpers.shards import members, write_parquet, write_tar

from edgetl.errors import DataError
from edgetl.runtime.images import store
from edgetl.runtime.images.photo_places import photos_in
from edgetl.system import remote_store


class Handler(http.server.SimpleHTTPRequestHandler):
    """Python's server, which sends whole files only; ``busy`` requests are answered with 503."""

    busy = 0

    def do_GET(self) -> None:
        if Handler.busy > 0:
            Handler.busy -= 1
            self.send_error(503)
        elif self.path == "/endless.png":
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(bytes(1 << 16))
        else:
            super().do_GET()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that is served, with photos in pets/ and in shards."""
    folder = tmp_path_factory.mktemp("served")
    for number in range(4):
        place = folder / "pets" / ("cat" if number % 2 else "dog")
        place.mkdir(parents=True, exist_ok=True)
        photo(number, 30 + number, 20).save(place / f"{number}.png")
    write_tar(folder / "pets.tar", members(folder / "pets"))
    write_parquet(folder / "pets.parquet", folder / "pets")
    return folder


@pytest.fixture
def address(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(remote_store, "PAUSES", (0.01,) * 5)
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Handler, directory=str(folder))
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("busy", [0, 3])
@pytest.mark.parametrize("name", ["pets/", "pets.tar", "pets.parquet"])
def test_photos_are_those_that_are_served(folder, address, name, busy):
    Handler.busy = busy
    found = [listed.path.read_bytes() for listed in photos_in(f"{address}/{name}")]
    assert found == [path.read_bytes() for path in sorted(folder.glob("pets/*/*"))]
    assert Handler.busy == 0


def test_a_single_photo(folder, address):
    (found,) = photos_in(f"{address}/pets/cat/1.png?version=3")
    assert found.path.read_bytes() == (folder / "pets/cat/1.png").read_bytes()


def test_a_photo_without_an_end_is_not_read_for_ever(address, monkeypatch):
    monkeypatch.setattr(store, "MAX_PHOTO_BYTES", 1 << 20)
    (found,) = photos_in(f"{address}/endless.png")
    with pytest.raises(OSError, match="it is longer than 1 MiB"):
        found.path.read_bytes()


@pytest.mark.parametrize("name", ["none.tar", "none/"])
def test_what_is_not_served_is_named(address, name):
    with pytest.raises(DataError, match=f"There is no {address}/{name}"):
        photos_in(f"{address}/{name}")


def test_a_server_that_does_not_answer_is_named(address, monkeypatch):
    monkeypatch.setattr(remote_store, "PAUSES", ())
    for name in ("pets.tar", "pets/"):
        with pytest.raises(DataError, match=r"127\.0\.0\.1:1/pets.* can't be read: Cannot connect"):
            photos_in(f"http://127.0.0.1:1/{name}")


def test_an_address_with_a_password_is_refused_without_showing_it():
    with pytest.raises(DataError, match=r"address of shop\.example has a password") as raised:
        photos_in("https://me:secret@shop.example/pets.tar")
    assert "secret" not in f"{raised.value} {raised.value.hint}"


def test_a_web_server_is_waited_for_without_reading_the_file(address, monkeypatch):
    monkeypatch.setattr(remote_store, "PATIENT_PAUSES", (0.01,) * 5)
    Handler.busy = 3
    store.wait_for_object(f"{address}/endless.png")
    assert Handler.busy == 0
