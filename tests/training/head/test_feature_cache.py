"""The cache of features: found again, keyed by all they depend on, and checked when read."""

from __future__ import annotations

import copy
import hashlib
import io
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edgetl.data.image_folder import Sample, scan
from edgetl.errors import TrainingError
from edgetl.training.head import feature_cache
from edgetl.training.head import features as features_module
from edgetl.training.head.feature_cache import cache_folder, make_room
from edgetl.training.head.features import extract_features
from edgetl.training.models.backbone import Backbone
from edgetl.training.models.backbones import build
from edgetl.training.models.multi_level import find_levels, with_levels


def resized_otherwise(backbone: Backbone) -> Backbone:
    return replace(backbone, spec=replace(backbone.spec, interpolation="bicubic"))


def test_the_second_run_finds_everything(
    backbone: Backbone, samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    first = extract_features(backbone, samples, cache=tmp_path)
    second = extract_features(backbone, samples, cache=tmp_path)
    assert (first.cached, second.cached, second.runtime) == (0, len(samples), "the cache")
    assert first.of(samples).tobytes() == second.of(samples).tobytes()


def test_a_changed_photo_is_computed_again(
    backbone: Backbone, tmp_path: Path, two_parts: Path
) -> None:
    before = scan(two_parts).train
    extract_features(backbone, before, cache=tmp_path / "cache")
    before[0].path.write_bytes(
        before[1].path.with_name("004.png").read_bytes() + b"\0"
    )  # another photo's pixels
    after = scan(two_parts).train
    found = extract_features(backbone, after, cache=tmp_path / "cache")
    assert found.cached == len(after) - 1
    assert found.of(after).tobytes() == extract_features(backbone, after).of(after).tobytes()


def test_other_weights_and_another_spec_are_not_mixed_up(
    backbone: Backbone, samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    extract_features(backbone, samples, cache=tmp_path)
    torch.manual_seed(1)
    others = (build(backbone.name, 3, weights="none"), resized_otherwise(backbone))
    assert [extract_features(other, samples, cache=tmp_path).cached for other in others] == [0, 0]


def test_features_of_other_layers_and_other_packages_are_not_mixed_up(
    backbone: Backbone, samples: tuple[Sample, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract_features(backbone, samples[:2], cache=tmp_path)
    levels = find_levels(backbone)
    found = extract_features(backbone, samples[:2], cache=tmp_path, levels=levels)
    assert found.cached == 0
    wide = with_levels(copy.deepcopy(backbone), levels)  # a head that uses them
    again = extract_features(wide, samples[:2], cache=tmp_path)
    assert again.cached == 2
    assert again.of(samples[:2]).tobytes() == found.of(samples[:2]).tobytes()
    assert extract_features(backbone, samples[:2], cache=tmp_path).cached == 2
    monkeypatch.setattr(features_module, "package_versions", lambda *names: {"torch": "9.9"})
    assert extract_features(backbone, samples[:2], cache=tmp_path).cached == 0


@pytest.mark.parametrize("damage", [b"", b"not a shard", None])
def test_a_damaged_shard_is_removed_and_computed_again(
    damage: bytes | None, backbone: Backbone, samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    first = extract_features(backbone, samples, cache=tmp_path).of(samples)
    (shard,) = tmp_path.rglob("*.npy")
    content = bytearray(shard.read_bytes())
    content[-3] ^= 1
    shard.write_bytes(content if damage is None else damage)
    found = extract_features(backbone, samples, cache=tmp_path)
    assert found.cached == 0 and found.of(samples).tobytes() == first.tobytes()
    assert len(list(tmp_path.rglob("*.npy"))) == 1


def as_npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "kind", ["empty", "no array", "another dtype", "another shape", "another width"]
)
def test_other_files_with_the_name_of_a_shard_are_removed(
    kind: str, backbone: Backbone, samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    first = extract_features(backbone, samples, cache=tmp_path).of(samples)
    (shard,) = tmp_path.rglob("*.npy")
    rows = np.load(shard)
    narrow = np.zeros(len(rows), [("digest", np.uint8, (32,)), ("feature", "<f4", (7,))])
    narrow["digest"] = rows["digest"]
    content = {
        "empty": b"",
        "no array": b"words",
        "another dtype": as_npy(np.zeros(4)),
        "another shape": as_npy(rows[None]),
        "another width": as_npy(narrow),
    }[kind]
    odd = shard.with_name(f"{hashlib.sha256(content).hexdigest()}.npy")
    for others in ([shard], []):  # beside the real shard, and alone
        odd.write_bytes(content)
        found = extract_features(backbone, samples, cache=tmp_path)
        assert found.cached == (len(samples) if others else 0) and not found.notes
        assert found.of(samples).tobytes() == first.tobytes()
        assert list(tmp_path.rglob("*.npy")) == [shard]
        shard.unlink()


def test_a_shard_of_another_spec_is_not_used(
    backbone: Backbone, samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    plain = extract_features(backbone, samples, cache=tmp_path / "a").of(samples)
    extract_features(resized_otherwise(backbone), samples, cache=tmp_path / "b")
    (own,), (other,) = ((tmp_path / name).rglob("*.npy") for name in "ab")
    own.unlink()
    own.with_name(other.name).write_bytes(other.read_bytes())
    found = extract_features(backbone, samples, cache=tmp_path / "a")
    assert found.cached == 0 and found.of(samples).tobytes() == plain.tobytes()


def test_files_and_folders_that_are_not_shards_are_ignored(
    backbone: Backbone, samples: tuple[Sample, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features_module, "MOST_BYTES", 1)
    extract_features(backbone, samples[:4], cache=tmp_path)
    (folder,) = tmp_path.iterdir()
    (tmp_path / ("0" * 32)).write_bytes(b"not a folder")
    notes = [folder / "notes.npy", folder / ".notes.npy.1.part"]
    folders = [folder / "0.npy", folder / f"{'0' * 64}.npy", folder / f".{'0' * 64}.npy.1.part"]
    for path in notes:
        path.write_bytes(b"not written by edgetl")
    for path in folders:
        path.mkdir()
    for path in (*notes, *folders):
        os.utime(path, (1000, 1000))
    found = extract_features(backbone, samples, cache=tmp_path)
    assert found.cached == 4 and not found.notes
    extract_features(
        resized_otherwise(backbone), samples, cache=tmp_path
    )  # removes all shards that it finds
    assert set(folder.iterdir()) == {*notes, *folders}


def test_a_full_cache_removes_what_was_not_used_for_longest(
    backbone: Backbone, samples: tuple[Sample, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features_module, "SHARD", 6)
    extract_features(backbone, samples[:18], cache=tmp_path)
    shards = sorted(tmp_path.rglob("*.npy"), key=lambda path: path.stat().st_mtime_ns)
    for age, shard in enumerate(reversed(shards)):
        os.utime(shard, (1000 - age, 1000 - age))
    foreign = tmp_path / shards[0].parent.name / "notes.npy"
    foreign.write_bytes(b"not written by edgetl")
    make_room(tmp_path, {shards[0]}, shards[0].stat().st_size * 2)
    assert set(tmp_path.rglob("*.npy")) == {shards[0], shards[2], foreign}
    assert extract_features(backbone, samples[:18], cache=tmp_path).cached == 12


def test_a_run_keeps_what_it_used_and_removes_what_others_left(
    backbone: Backbone, samples: tuple[Sample, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features_module, "MOST_BYTES", 1)
    extract_features(resized_otherwise(backbone), samples, cache=tmp_path)
    abandoned = next(tmp_path.iterdir()) / f".{'0' * 64}.npy.1.part"
    abandoned.write_bytes(b"half a shard")
    os.utime(abandoned, (1000, 1000))
    assert extract_features(backbone, samples[:4], cache=tmp_path).cached == 0
    assert not abandoned.exists()
    assert extract_features(backbone, samples, cache=tmp_path).cached == 4
    assert len(list(tmp_path.rglob("*.npy"))) == 2
    assert extract_features(resized_otherwise(backbone), samples[:1], cache=tmp_path).cached == 0


def test_shards_that_were_used_last_stay(
    backbone: Backbone, samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    for used, one in ((1000, backbone), (2000, resized_otherwise(backbone))):
        extract_features(one, samples[:2], cache=tmp_path)
        (shard,) = (path for path in tmp_path.rglob("*.npy") if path.stat().st_mtime > 2000)
        os.utime(shard, (used, used))
    extract_features(backbone, samples[:2], cache=tmp_path)  # written first, used last
    make_room(tmp_path, set(), shard.stat().st_size)
    assert extract_features(backbone, samples[:2], cache=tmp_path).cached == 2
    assert not shard.exists()


def test_a_shard_that_another_run_removes_is_computed_again(
    backbone: Backbone, samples: tuple[Sample, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = extract_features(backbone, samples, cache=tmp_path).of(samples)
    load = feature_cache.load_shard

    def removed(path: Path) -> object:
        path.unlink()
        return load(path)

    monkeypatch.setattr(feature_cache, "load_shard", removed)
    found = extract_features(backbone, samples, cache=tmp_path)
    assert found.cached == 0 and not found.notes and found.of(samples).tobytes() == first.tobytes()


def test_without_a_home_folder_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("pathlib.Path.home", no_home)
    assert cache_folder("auto") is None


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder("auto") == tmp_path / "edgetl/features"
    assert cache_folder("elsewhere") == Path("elsewhere")
    assert cache_folder("off") is None
    assert cache_folder("Auto") == cache_folder("auto") and cache_folder("OFF") is None
    for nowhere in ("", " "):
        with pytest.raises(
            TrainingError, match=r"--feature-cache is ' ?'; it takes auto, off, or a folder"
        ):
            cache_folder(nowhere)


def test_an_unreadable_shard_costs_only_its_own_features(
    backbone: Backbone, samples: tuple[Sample, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in (samples[:2], samples[2:4], samples[4:6]):
        extract_features(backbone, part, cache=tmp_path)
    shards = sorted(tmp_path.glob("*/*.npy"))
    plain = feature_cache.load_shard

    def refuse(path: Path) -> object:
        if path == shards[0]:
            raise PermissionError(13, "Permission denied")
        return plain(path)

    monkeypatch.setattr(feature_cache, "load_shard", refuse)
    found = extract_features(backbone, samples[:6], cache=tmp_path)
    assert found.cached == 4 and any("Permission denied" in note for note in found.notes)


def test_shards_have_the_usual_permissions(
    backbone: Backbone, samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    extract_features(backbone, samples[:1], cache=tmp_path)
    (shard,) = tmp_path.glob("*/*.npy")
    (tmp_path / "plain").touch()
    assert shard.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_without_a_writable_folder_features_are_still_computed(
    backbone: Backbone, samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    found = extract_features(backbone, samples[:3], cache=blocked / "cache")
    assert found.of(samples[:3]).shape[0] == 3
    assert any(str(blocked) in note for note in found.notes)
