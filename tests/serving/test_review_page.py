"""The page of a review of labels, without a browser."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
from helpers.browser import CHROMIUM, in_chromium
from helpers.pictures import write_photo
from PIL import Image
from starlette.testclient import TestClient

import edgetl.serving
from edgetl.data.label_review import DoubtfulPhoto, LabelReview
from edgetl.data.photo_source import PhotoSource
from edgetl.data.review_log import ReviewLog
from edgetl.serving.loopback import serve
from edgetl.serving.review_page import review_app

FILES = Path(edgetl.serving.__path__[0])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_photo(tmp_path / "data/cat/1.png", (200, 80, 60), 1, (30, 4000))
    write_photo(tmp_path / "data/dog/2.png", (60, 90, 200), 2)
    (tmp_path / "data/cat/broken.jpg").write_bytes(b"no photo")
    return tmp_path / "data"


@pytest.fixture
def client(data: Path, tmp_path: Path) -> Iterator[TestClient]:
    photos = [
        DoubtfulPhoto("cat/1.png", "cat", "dog", 0.98),
        DoubtfulPhoto("cat/broken.jpg", "cat", "dog", 0.7),
    ]
    with ReviewLog(tmp_path / "review.jsonl") as log:
        review = LabelReview(PhotoSource.at(data), ("cat", "dog", "<b>&"), photos, log)
        yield TestClient(review_app(review, "pets"))


def test_the_page_and_its_files_are_served(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    for name in re.findall(r'(?:src|href)="(review\.\w+)"', page.text):
        assert client.get(f"/{name}").status_code == 200
    for path in ("/review.html", "/review_page.py", "/../pyproject.toml", "/photos/x"):
        assert client.get(path).status_code == 404


def test_the_state_tells_labels_and_photos(client: TestClient) -> None:
    state = client.get("/state").json()
    assert (state["name"], state["labels"]) == ("pets", ["cat", "dog", "<b>&"])
    assert state["items"][0] == {
        "file": "cat/1.png",
        "label": "cat",
        "answer": "dog",
        "label_error": 0.98,
        "state": "open",
        "new_label": "",
    }


def test_a_photo_is_a_jpeg_that_a_screen_can_hold(client: TestClient) -> None:
    answer = client.get("/photos/0")
    picture = Image.open(io.BytesIO(answer.content))
    assert (picture.format, picture.size) == ("JPEG", (1600, 12))
    assert answer.headers["content-type"] == "image/jpeg"
    broken, none = client.get("/photos/1"), client.get("/photos/2")
    assert broken.status_code == none.status_code == 404
    assert "no photo" not in broken.text


def test_decisions_are_carried_out_and_taken_back(client: TestClient, data: Path) -> None:
    moved = client.post("/photos/0/move", content="dog").json()
    assert (moved["index"], moved["item"]["state"]) == (0, "moved")
    assert (data / "dog/1.png").is_file() and not (data / "cat/1.png").exists()
    assert client.get("/photos/0").status_code == 200
    assert client.post("/photos/1/keep").json()["item"]["state"] == "kept"
    assert client.post("/undo").json()["index"] == 1
    assert client.post("/undo").json()["item"]["state"] == "open"
    assert (data / "cat/1.png").is_file()


def test_what_can_not_be_done_is_said(client: TestClient) -> None:
    for path, content in (
        ("/photos/0/move", "unknown"),
        ("/photos/0/move", "cat"),
        ("/photos/0/move", b"\xff"),
        ("/photos/7/keep", ""),
        ("/undo", ""),
    ):
        answer = client.post(path, content=content)
        assert answer.status_code == 409 and answer.text.endswith(".")
    for path in ("/photos/0/move", "/photos/0/keep", "/undo"):
        assert client.get(path).status_code == 405


def test_a_browser_shows_the_first_photo(client: TestClient, tmp_path: Path) -> None:
    """Its script runs under the page's policy."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here; .ci/run installs one")
    found: list[subprocess.CompletedProcess[str]] = []

    def browse(address: str) -> None:
        try:
            options = ("--virtual-time-budget=5000", "--dump-dom")
            found.append(in_chromium(address, tmp_path, *options))
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    serve(client.app, 0, lambda address: Thread(target=browse, args=(address,)).start())
    page = re.sub(r"\s+", " ", found[0].stdout)
    assert '<span id="count">0 of 2</span>' in page and 'src="photos/0"' in page
    assert '<dd id="label">cat</dd>' in page and "Move to dog" in page
    assert re.search(r'<p id="error" role="alert" hidden', page)
    assert "&lt;b&gt;&amp;</option>" in page  # a label is text
    assert "Content Security Policy" not in found[0].stderr


def test_the_files_hold_nothing_that_their_policy_forbids() -> None:
    page = (FILES / "review.html").read_text(encoding="utf-8")
    script = (FILES / "review.js").read_text(encoding="utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|https?:|<script(?! src=)", page)
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|eval\(", script)
    # Every element that the script asks for is there.
    ids = set(re.findall(r'id="([\w-]+)"', page))
    asked = set(re.findall(r'element\("([\w-]+)"\)', script))
    keys = set(re.findall(r"^  (\w+)(?::|,$)", script.partition("actions = {")[2], re.MULTILINE))
    assert asked <= ids and {"move", "keep", "other", "skip", "undo"} <= ids & (keys | asked)
