"""``edgetl predict --ray`` on a real Ray cluster of two nodes on this machine."""

from __future__ import annotations

import http.server
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest
from helpers.pictures import photo
from helpers.result_tables import manifest_of, rows_of

from edgetl.cluster.ray_cluster import cluster_address
from edgetl.errors import RuntimeUnavailableError

_SECONDS = 240  # at most, for what takes 20 on a quiet machine


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Any]:
    """A cluster of two nodes with a core each."""
    node = {"num_cpus": 1, "object_store_memory": 100 << 20}
    with TemporaryDirectory(prefix="ray-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_TMPDIR", folder)  # also for what all clusters of a machine would share
        from ray.cluster_utils import Cluster

        head = {**node, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            cluster.add_node(**node)
            yield cluster
        finally:
            cluster.shutdown()


@pytest.fixture(scope="module")
def slow_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 names of a photo that takes some time, in folders named as labels, and a damaged one."""
    folder = tmp_path_factory.mktemp("slow")
    photo(1, 1000, 700).save(folder / "photo.png")
    for number in range(200):
        place = folder / "photos" / ("plain" if number % 2 else "two words")
        place.mkdir(parents=True, exist_ok=True)
        os.link(folder / "photo.png", place / f"{number}.png")
    (folder / "photos/plain/damaged.jpg").write_bytes(b"\xff\xd8\xff and no more")
    return folder / "photos"


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "edgetl", "predict", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        # A background job inherits a SIGINT that is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """(exit code, stdout, stderr)"""
    try:
        out, error = process.communicate(timeout=_SECONDS)
    finally:
        process.kill()
    return process.returncode, out, error


def wait_for_parts(out: Path, count: int, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + _SECONDS
    while len(list(out.glob("part-*"))) < count:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.01)


def actors() -> list[psutil.Process]:
    """The processes of the cluster's actors, which are descendants of this one."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # any more
            if "PhotoClassifier" in " ".join(process.cmdline()):
                found.append(process)
    return found


def test_a_run_that_is_interrupted_and_loses_a_worker_has_the_rows_of_one_machine(
    two_nodes, tiny_bundle, slow_photos, tmp_path
):
    cluster_address(two_nodes.address)
    out, local = tmp_path / "out", tmp_path / "local.parquet"
    running = start(tiny_bundle, slow_photos, "--out", out, "--ray", two_nodes.address)
    wait_for_parts(out, 1, running)
    running.send_signal(signal.SIGINT)
    code, printed, said = ended(running)
    assert (code, printed) == (130, "") and [line for line in said.splitlines() if line] == [
        f"{out} is not complete; the same command continues it.",
        "Interrupted.",
    ]
    while actors():  # which may write until they are told of the end
        time.sleep(0.05)
    known, parts = len(rows_of(out)), len(list(out.glob("part-*")))
    assert 0 < known < 201 and manifest_of(out)["complete"] is False

    running = start(tiny_bundle, slow_photos, "--out", out, "--ray", two_nodes.address)
    wait_for_parts(out, parts + 1, running)
    actors()[0].send_signal(signal.SIGKILL)
    code, printed, said = ended(running)
    assert (code, printed) == (1, ""), said
    accuracy, photos, failed = said.splitlines()
    assert accuracy.startswith("Accuracy ") and accuracy.endswith(", of the new photos")
    assert photos == f"photos in {out}: 201, {known} of them from before"
    assert failed == f"1 of 201 photos could not be classified; {out} says why."
    assert manifest_of(out)["complete"] is True and manifest_of(out)["photos"] == 201
    assert ended(start(tiny_bundle, slow_photos, "--out", local))[0] == 1
    assert rows_of(out) == rows_of(local)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", "There is no Ray cluster at 127.0.0.1:1: Connection refused"),
        ("ray://127.0.0.1:10001", "have `ray job submit` give it there"),
        ("photos", "a cluster's address is HOST:PORT, or auto"),
    ],
)
def test_a_wrong_address_is_named(tiny_bundle, slow_photos, tmp_path, address, message):
    out = tmp_path / "out"
    code, printed, said = ended(start(tiny_bundle, slow_photos, "--out", out, "--ray", address))
    assert (code, printed) == (1, "") and message in said and "Traceback" not in said
    assert not out.exists()


def test_the_environment_may_name_the_cluster(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert cluster_address("") == ""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert cluster_address("auto") == "auto"
    with pytest.raises(RuntimeUnavailableError, match=r"no Ray cluster at 127\.0"):
        cluster_address("")


def test_another_program_at_the_address_is_noticed_at_once():
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with pytest.raises(RuntimeUnavailableError, match="another program answers there"):
            cluster_address(f"127.0.0.1:{server.server_port}")
        thread.join()
