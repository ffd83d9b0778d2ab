"""Runs on photos in shards and stores: the same bits as on the folder that they are from."""

from __future__ import annotations

import signal
from pathlib import Path

import fsspec
import pytest
from helpers.shards import members, write_parquet, write_tar
from helpers.training_runs import (
    Notebook,
    equal,
    features_of,
    signal_in_step,
    small,
    train,
    weights_of,
)

from edgetl import train as public_train
from edgetl.data.image_folder import scan
from edgetl.data.photo_source import PhotoSource
from edgetl.errors import DataError, TrainingError
from edgetl.exporting.photo_selection import run_data
from edgetl.training.engine.resumed_run import resume
from edgetl.training.models import checkpoint


@pytest.fixture
def places(two_parts: Path, tmp_path: Path) -> dict[str, str]:
    """The photos of ``two_parts``, named in other ways; kind → name."""
    memory = fsspec.filesystem("memory")
    for own in ("/data", "/training-shards"):  # other tests have theirs in the same store
        if memory.exists(own):
            memory.rm(own, recursive=True)
    for path in two_parts.rglob("*.png"):
        memory.pipe(f"/data/{path.relative_to(two_parts)}", path.read_bytes())
    for part in ("train", "val"):
        folder = two_parts / part
        samples = members(folder)
        for number, some in enumerate((samples[:7], samples[7:])):
            shard = write_tar(tmp_path / f"pets-{part}-{number}.tar", some)
            memory.pipe(f"/training-shards/{shard.name}", shard.read_bytes())
        write_parquet(tmp_path / f"{part}-0.parquet", folder)
    return {
        "tars": f"{tmp_path}/pets-*.tar",
        "tars in a store": "memory://training-shards/pets-{train,val}-{0..1}.tar",
        "parquet": f"{tmp_path}/{{train,val}}-*.parquet",
        "folder in a store": "memory://data",
    }


KINDS = ("tars", "tars in a store", "parquet", "folder in a store")


@pytest.mark.parametrize("kind", KINDS)
def test_photos_are_those_of_the_folder_in_the_same_order(two_parts, places, kind):
    found, expected = scan(PhotoSource.at(places[kind])), scan(two_parts)
    assert found.classes == expected.classes and found.has_val_folder
    for part in ("train", "val"):
        assert [(sample.digest, sample.label) for sample in getattr(found, part)] == [
            (sample.digest, sample.label) for sample in getattr(expected, part)
        ]


def test_the_same_bits_as_from_the_folder(two_parts, places, tmp_path):
    train(features_of(two_parts), tmp_path / "folder")
    for kind in ("tars in a store", "parquet"):
        train(features_of(places[kind]), tmp_path / kind)
        assert equal(weights_of(tmp_path / "folder"), weights_of(tmp_path / kind))


def test_the_same_bits_where_the_network_is_trained(two_parts, places, tmp_path):
    for name, data in (("folder", two_parts), ("stored", places["tars in a store"])):
        train(small(data, cache="off" if name == "stored" else "auto"), tmp_path / name)
    assert equal(weights_of(tmp_path / "folder"), weights_of(tmp_path / "stored"))


def test_copies_of_a_photo_are_on_one_side_and_unreadable_ones_are_named(two_parts, tmp_path):
    memory = fsspec.filesystem("memory")
    for path in (two_parts / "train").rglob("*.png"):
        for copy in ("", "copy of "):
            memory.pipe(f"/unsplit/{path.parent.name}/{copy}{path.name}", path.read_bytes())
    memory.pipe("/unsplit/ash/damaged.png", b"\x89PNG and no more")
    notebook = Notebook()
    train(features_of("memory://unsplit"), tmp_path / "run", listener=notebook)
    data = scan(PhotoSource.at("memory://unsplit"))
    train_digests, val_digests = (
        {sample.digest for sample in part} for part in (data.train, data.val)
    )
    assert not train_digests & val_digests and data.val_fraction is not None
    assert any("ash/damaged.png" in sentence for sentence in notebook.notes)


def test_a_run_goes_on_and_is_exported_where_its_shards_are(places, tmp_path, monkeypatch):
    place = places["tars in a store"]
    train(small(place, epochs=3), tmp_path / "whole")
    with monkeypatch.context() as patch:
        signal_in_step(patch, 4, signal.SIGTERM)
        assert not train(small(place, epochs=3), tmp_path / "run").finished
    assert resume(tmp_path / "run").finished
    assert equal(weights_of(tmp_path / "whole"), weights_of(tmp_path / "run"))
    trained = checkpoint.load(tmp_path / "run")
    assert trained.settings is not None
    assert len(run_data(trained.settings, trained.card, "golden photos", "hint").val) == 9


def test_what_shards_can_not_be_trained_on_is_refused(two_parts, places, tmp_path):
    options = {"backbone": "timm/test_resnet", "weights": "none", "device": "cpu"}
    unlabelled = [
        [(f"{i}.png", sample[0][1])] for i, sample in enumerate(members(two_parts / "val"))
    ]
    write_tar(tmp_path / "unlabelled.tar", unlabelled)
    with pytest.raises(DataError, match=r"unlabelled\.tar/0\.png has no label"):
        public_train(tmp_path / "unlabelled.tar", tmp_path / "run", **options)
    write_tar(tmp_path / "pets-other.tar", members(two_parts / "val"))
    with pytest.raises(DataError, match=r"pets-other\.tar/0000\.png is in no part"):
        public_train(places["tars"], tmp_path / "run", **options)
    (tmp_path / "pets-other.tar").unlink()
    with pytest.raises(TrainingError, match=r"--val-fraction: no effect where the shards"):
        public_train(places["tars"], tmp_path / "run", val_fraction=0.3, **options)
    with pytest.raises(DataError, match="There is no memory://nothing"):
        public_train("memory://nothing", tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()
