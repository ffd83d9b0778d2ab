"""``edgetl data review``: from a run's table to corrected labels."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import urllib.request
from collections.abc import Callable
from importlib import util
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from helpers.pictures import write_photo
from safetensors.numpy import save_file

from edgetl.cli.main import command
from edgetl.serving import loopback

HEADER = "file,label,answer,confidence,label_error\n"


def review(*arguments: object) -> Result:
    return CliRunner().invoke(command, ["data", "review", *map(str, arguments)])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """What a finished run on DATA leaves, as far as a review looks at it."""
    for label, file in (("cat", "1.png"), ("cat", "2.png"), ("dog", "3.png")):
        write_photo(tmp_path / f"data/{label}/{file}", (200, 80, 60), int(file[0]))
    write_run(tmp_path / "runs/pets", tmp_path / "data")
    return tmp_path / "runs/pets"


def write_run(run: Path, data: Path | None) -> None:
    run.mkdir(parents=True, exist_ok=True)
    settings = {"data": str(data), "columns": "", "root": ""} if data else {"images": None}
    description = {"card": {"labels": ["cat", "dog"]}, "settings": settings}
    metadata = {"edgetl": json.dumps(description)}
    save_file({"weight": np.zeros(1)}, run / "best.safetensors", metadata=metadata)
    (run / "metrics.json").write_text("{}")
    rows = "cat/1.png,cat,dog,0.9,0.99\ncat/gone.png,cat,dog,0.8,0.9\ndog/3.png,dog,cat,0.7,0.6\n"
    (run / "doubtful.csv").write_text(HEADER + rows)


@pytest.fixture
def visit(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str], object]], None]:
    """Do something with the page's address while the server runs; then Ctrl-C."""

    serve = loopback.serve

    def install(browse: Callable[[str], object]) -> None:
        def visited(app: object, port: int, on_start: Callable[[str], object]) -> None:
            def browser(address: str) -> None:
                try:
                    browse(address)
                finally:
                    os.kill(os.getpid(), signal.SIGINT)

            def started(address: str) -> None:
                on_start(address)
                threading.Thread(target=browser, args=(address,)).start()

            serve(app, port, started)  # type: ignore[arg-type]

        monkeypatch.setattr(loopback, "serve", visited)

    return install


def post(address: str, path: str, content: bytes = b"") -> None:
    origin = re.match(r"http://[^/]+", address)
    assert origin
    request = urllib.request.Request(address + path, content, {"Origin": origin[0]})
    urllib.request.urlopen(request, timeout=10).close()


def test_labels_are_corrected_on_the_page(run: Path, visit: Callable[..., None]) -> None:
    data = run.parents[1] / "data"

    visit(lambda address: post(address, "photos/0/move", b"dog"))
    result = review(run)
    assert result.exit_code == 0, result.output
    assert "1 photo left out: gone, or with another label now." in result.output
    assert "2 photos to review. Open this page:" in result.output
    assert "1 moved, 0 kept, 1 left." in result.output
    assert f"edgetl train {data} -o NEW" in result.output
    assert sorted(path.name for path in (data / "dog").iterdir()) == ["1.png", "3.png"]

    visit(lambda address: post(address, "undo"))
    result = review(run)
    assert "1 photo to review" in result.output and "0 moved, 0 kept, 2 left." in result.output
    assert "edgetl train" not in result.output
    assert sorted(path.name for path in (data / "cat").iterdir()) == ["1.png", "2.png"]


def test_the_labels_of_a_list_are_corrected_in_a_copy(
    run: Path, visit: Callable[..., None]
) -> None:
    photos = run.parents[1] / "my photos.csv"
    rows = [f"data/{file},{file[:3]}" for file in ("cat/1.png", "cat/2.png", "dog/3.png")]
    photos.write_text("\n".join(["path,label", *rows]))
    write_run(run, photos)
    (run / "doubtful.csv").write_text(HEADER + "data/cat/1.png,cat,dog,0.9,0.99\n")
    visit(lambda address: post(address, "photos/0/move", b"dog"))
    result = review(run, "--port", "0")
    copy = photos.with_name("my photos.reviewed.csv")
    assert f"edgetl train '{copy}' -o NEW" in result.output
    assert copy.read_text().splitlines() == ["path,label", "data/cat/1.png,dog", *rows[1:]]


def test_a_run_without_doubtful_labels_needs_no_review(run: Path) -> None:
    (run / "doubtful.csv").unlink()
    result = review(run)
    assert result.exit_code == 0 and "looks wrong" in result.output
    assert not (run / "review.jsonl").exists()


def test_what_is_no_finished_run_on_photos_that_are_there_is_a_clear_error(
    run: Path, tmp_path: Path
) -> None:
    def refused(where: Path, *words: str) -> None:
        result = review(where)
        assert result.exit_code == 1 and "Traceback" not in result.output
        assert all(word in result.output for word in words), result.output

    refused(tmp_path / "nowhere", "holds no finished run", "edgetl train")
    (run / "doubtful.csv").write_text(HEADER + "cat/1.png,cat\n")
    refused(run, "doubtful.csv can't be read", "Train again")
    (run / "doubtful.csv").write_text(HEADER + "cat/1.png,cat,dog,0.9,nan\n")
    refused(run, "doubtful.csv can't be read", "label_error is nan")
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    refused(run, "no longer at", "Put them back")
    write_run(run, None)
    refused(run, "was imported")
    (run / "metrics.json").unlink()
    refused(run, "holds no finished run")


def test_without_the_packages_it_says_what_to_install(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = util.find_spec
    monkeypatch.setattr(
        "edgetl.system.missing_package.find_spec",
        lambda name: None if name == "uvicorn" else find(name),
    )
    result = review(run)
    assert result.exit_code == 1
    assert "needs the extra serve; uvicorn is not installed" in result.output
    assert 'pip install "edgetl[serve]"' in result.output
