"""Models of a service that are replaced on disk."""

from __future__ import annotations

import asyncio
import gc
import logging
import shutil
import weakref
from pathlib import Path

import pytest
from helpers import tiny_bundle as bundles
from helpers.pictures import photo
from helpers.tampering import sign

from edgetl.errors import BundleError, ImageError
from edgetl.runtime.bundle.bundle_folder import Bundle
from edgetl.serving.photo_queue import PhotoQueue
from edgetl.serving.served_models import ServedModels
from edgetl.serving.service_settings import ServiceSettings

PICTURE = photo(1, 40, 30)


def bundle(folder: Path, temperature: float, golden_photos: int = 1) -> Path:
    photos = (PICTURE,) * golden_photos
    return bundles.write(folder, bundles.card(temperature=temperature), photos=photos)


@pytest.fixture
def served(tmp_path: Path) -> ServedModels:
    return ServedModels(ServiceSettings({"tiny": bundle(tmp_path / "tiny", 1.0)}, {"threads": 1}))


def replace(tmp_path: Path, temperature: float, golden_photos: int = 1) -> Path:
    """As an export does: the new folder takes the place of the old one."""
    new = bundle(tmp_path / "new", temperature, golden_photos)
    (tmp_path / "tiny").rename(tmp_path / f"old {temperature}")
    return new.rename(tmp_path / "tiny")


def settled(served: ServedModels) -> dict[str, bool]:
    """What comes of a change after it was seen twice."""
    assert served.take_replaced() == {}
    return served.take_replaced()


def test_a_new_model_is_taken_and_who_has_the_old_one_keeps_it(
    served: ServedModels, tmp_path: Path
) -> None:
    old = served[None]
    before = old.predictor(PICTURE).probabilities
    replace(tmp_path, 3.0)
    assert settled(served) == {"tiny": True}
    new = served["tiny"]
    assert new.version != old.version
    assert new.predictor.card.temperature == 3
    assert (old.predictor(PICTURE).probabilities == before).all()
    assert settled(served) == {}


@pytest.mark.parametrize("lacking", ["model.onnx", "manifest.json"])
def test_a_damaged_model_is_refused_until_it_is_whole(
    served: ServedModels, tmp_path: Path, lacking: str, caplog: pytest.LogCaptureFixture
) -> None:
    old = served["tiny"]
    new = replace(tmp_path, 3.0)
    content = (new / lacking).read_bytes()
    for damaged in (content[:-1], content[:-1] + b"!"):
        (new / lacking).write_bytes(damaged)
        caplog.clear()
        assert settled(served) == {"tiny": False}
        assert served["tiny"] is old
        assert "The model in use serves on." in caplog.text and lacking in caplog.text
        assert settled(served) == {}  # not tried again until it changes
    (new / lacking).write_bytes(content)
    assert settled(served) == {"tiny": True}


def test_a_model_that_answers_its_golden_photos_differently_is_refused(
    served: ServedModels, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    new = replace(tmp_path, 3.0)
    golden = dict(Bundle.open(new).manifest["golden"][0])
    sign(new, golden=[{**golden, "logits": [value + 1 for value in golden["logits"]]}])
    assert settled(served) == {"tiny": False}
    assert "its self-test failed at logits" in caplog.text
    with pytest.raises(BundleError, match="self-test failed") as error:
        ServedModels(ServiceSettings({"tiny": new}))
    assert "edgetl selftest" in str(error.value.hint)


def test_a_model_that_is_gone_serves_on(
    served: ServedModels, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(tmp_path / "tiny")
    assert settled(served) == {"tiny": False}
    assert "there is no such bundle" in caplog.text
    assert len(served["tiny"].predictor(PICTURE).labels) == 5
    bundle(tmp_path / "tiny", 2.0)
    assert settled(served) == {"tiny": True}


def test_the_same_model_again_changes_nothing(
    served: ServedModels, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    old = served["tiny"]
    replace(tmp_path, 1.0)
    assert settled(served) == {}
    assert served["tiny"] is old and not caplog.records


def test_a_lone_model_is_replaced_too(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    shutil.copy(bundle(tmp_path / "a", 1.0) / "model.onnx", file)
    served = ServedModels(ServiceSettings({"model": file}))
    shutil.copy(bundle(tmp_path / "b", 2.0) / "model.onnx", file)
    assert settled(served) == {"model": True}
    assert served["model"].predictor.card.temperature == 2


def test_a_limit_on_pixels_is_for_requests_not_for_golden_photos(tmp_path: Path) -> None:
    models = {"tiny": bundle(tmp_path / "tiny", 1.0)}
    served = ServedModels(ServiceSettings(models, {"max_pixels": 1000}))
    assert served["tiny"].predictor.max_pixels == 1000


def test_a_replaced_model_is_freed_after_a_photo_that_it_could_not_read(
    served: ServedModels, tmp_path: Path
) -> None:
    queue = PhotoQueue(4, 1, on_count=lambda _: None)
    old = weakref.ref(served["tiny"].predictor)
    gc.disable()  # which would free what circles of references hold
    try:
        ((failure, _),) = asyncio.run(queue.classify(served["tiny"], [b"no photo"]))
        replace(tmp_path, 3.0)
        assert settled(served) == {"tiny": True}
        assert isinstance(failure, ImageError) and old() is None
    finally:
        gc.enable()
        queue.close()
