"""Where decoded photos are stored."""

from __future__ import annotations

import pytest

from edgetl.errors import TrainingError
from edgetl.training.input import photo_storage
from edgetl.training.input.photo_storage import allocate


@pytest.mark.parametrize("where", ["memory", "disk", "auto"])
def test_storage_is_zero_writable_and_leaves_no_file(tmp_path, where):
    room = allocate((5, 4, 4, 3), where, tmp_path)
    room[3] = 7
    assert room.sum() == 7 * 48 and room.shape == (5, 4, 4, 3)
    assert list(tmp_path.iterdir()) == []


def test_without_memory_photos_are_stored_on_disk_and_without_disk_nowhere(tmp_path, monkeypatch):
    monkeypatch.setattr(photo_storage, "available_memory", lambda: 100)
    with pytest.raises(TrainingError, match="too much memory"):
        allocate((1000, 3), "memory", tmp_path)
    assert allocate((1000, 3), "auto", tmp_path).base is not None
    monkeypatch.setattr(photo_storage, "free_bytes", lambda folder: 100)
    assert allocate((1000, 3), "auto", tmp_path) is None
    with pytest.raises(TrainingError, match="no room"):
        allocate((1 << 50,), "disk", tmp_path)


def test_the_page_cache_of_a_container_counts_as_free_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(photo_storage, "_CGROUP", tmp_path)
    for limit, used, stats, free in [
        ("1000", "900", "anon 300\ninactive_file 600", 700),
        ("1000", "900", "anon 900", 100),
    ]:
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text(f"{used}\n")
        (tmp_path / "memory.stat").write_text(f"{stats}\n")
        assert photo_storage.available_memory() == free
    (tmp_path / "memory.max").write_text("max\n")
    assert photo_storage.available_memory() > 1000
