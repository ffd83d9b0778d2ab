"""What was verified is what runs."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import pytest

from edgetl import Predictor
from edgetl.errors import BundleError
from edgetl.runtime.bundle.memory_copy import InMemoryCopy, in_memory_copy
from edgetl.runtime.inference import session_pool


@pytest.fixture(params=["in a file in memory", "in bytes", "block by block"], autouse=True)
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "in bytes":
        monkeypatch.delattr("os.memfd_create")
    elif request.param == "block by block":

        def refuse(*_: object) -> int:
            raise OSError

        monkeypatch.setattr("os.sendfile", refuse)


def read(copy: InMemoryCopy) -> bytes:
    """The content, as onnxruntime reads it."""
    if isinstance(copy.source, bytes):
        return copy.source
    return Path(f"/proc/self/fd/{copy.source.fileno()}").read_bytes()


@pytest.mark.parametrize("length", [0, 1, 65_536, 200_001])
def test_the_whole_file_is_copied(tmp_path: Path, length: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(expected := os.urandom(length))
    with path.open("rb") as file:
        file.read(10)  # the position of the file does not matter
        with in_memory_copy(file) as copy:
            with copy.content() as content:
                assert bytes(content) == expected
            assert read(copy) == expected


def test_edits_change_the_copy_only(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    with path.open("rb") as file, in_memory_copy(file) as copy:
        with copy.content() as content:
            content[1] = ord("x")
        assert read(copy) == b"axc"
    assert path.read_bytes() == b"abc"


def test_a_file_changed_after_verification_is_run_as_it_was_verified(
    tiny_bundle: Path, bundle_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = bundle_copy / "model.onnx"

    def overwrite(*arguments: object, **options: object) -> object:
        model.write_bytes(b"something else")
        return open_session(*arguments, **options)  # type: ignore[arg-type]

    open_session = session_pool.open_session
    monkeypatch.setattr(session_pool, "open_session", overwrite)
    assert Predictor(bundle_copy).labels == Predictor(tiny_bundle).labels
    with pytest.raises(BundleError, match="14 bytes"):
        Predictor(bundle_copy)


def test_a_limit_on_file_sizes_does_not_limit_models(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(expected := os.urandom(200_000))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        with path.open("rb") as file, in_memory_copy(file) as copy, copy.content() as content:
            assert bytes(content) == expected
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
