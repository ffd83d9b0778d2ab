"""Files that are written whole or not at all, in a folder and in a store."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from edgetl.cluster.destination import Destination
from edgetl.errors import ResultsError
from edgetl.system import remote_store


@pytest.fixture(params=["folder", "store"])
def destination(request: pytest.FixtureRequest, tmp_path: Path) -> Destination:
    if request.param == "folder":
        return Destination(str(tmp_path / "new/out"))
    memory = fsspec.filesystem("memory")
    if memory.exists("/written"):
        memory.rm("/written", recursive=True)
    return Destination("memory://written/out/")


def test_what_is_written_is_read_again(destination: Destination):
    assert destination.files() == [] and destination.read("a") is None
    destination.write("a", b"1")
    destination.write("b", b"2")
    destination.write("a", b"3")
    assert destination.files() == ["a", "b"]
    assert destination.read("a") == b"3" and destination.read("c") is None


def test_an_address_of_this_machine_is_a_folder(tmp_path: Path):
    Destination(f"file://{tmp_path}/out").write("a", b"1")
    assert (tmp_path / "out/a").read_bytes() == b"1"


def test_what_killed_processes_were_writing_goes(tmp_path: Path):
    destination = Destination(str(tmp_path))
    (tmp_path / ".part-photos-1.parquet.77.part").write_bytes(b"half")
    assert destination.files() == []
    destination.remove_unfinished()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cant_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    destination = Destination(str(tmp_path / "file/out"))
    with pytest.raises(ResultsError, match=r"file/out can't be written: .*\nName another folder"):
        destination.write("a", b"1")


def test_a_busy_store_is_waited_for_and_one_that_stays_so_is_named(
    monkeypatch: pytest.MonkeyPatch,
):
    memory, busy = type(fsspec.filesystem("memory")), [OSError("busy")] * 3
    original = memory.pipe_file

    def pipe_file(*arguments: object, **options: object) -> None:
        if busy:
            raise busy.pop()
        original(*arguments, **options)

    monkeypatch.setattr(memory, "pipe_file", pipe_file)
    monkeypatch.setattr(remote_store, "PATIENT_PAUSES", (0, 0, 0))
    destination = Destination("memory://written/busy")
    destination.write("a", b"1")
    assert destination.read("a") == b"1" and not busy
    busy.extend([OSError("Please reduce your request rate.")] * 4)
    with pytest.raises(ResultsError, match=r"busy can't be written: Please reduce your request"):
        destination.write("a", b"2")
    assert destination.read("a") == b"1"
