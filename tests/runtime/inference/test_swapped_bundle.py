"""A predictor that is opened while another bundle is put in the place of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import tiny_bundle

from edgetl import Predictor
from edgetl.errors import BundleError
from edgetl.runtime.bundle.bundle_folder import Bundle
from edgetl.system.atomic_folder import replace_folder

OLD, NEW = (tiny_bundle.card(temperature=temperature) for temperature in (1.5, 3.0))


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def swap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, bytes]]:
    """Bundles that replace ``tmp_path/pets``, each right after its manifest was read."""
    waiting: list[dict[str, bytes]] = []
    plain = Bundle.open.__func__

    def open_and_swap(cls: type[Bundle], path: str | Path) -> Bundle:
        bundle: Bundle = plain(cls, path)
        if waiting:
            replace_folder(tmp_path / "pets", waiting.pop(0))
        return bundle

    tiny_bundle.write(tmp_path / "pets", OLD)
    monkeypatch.setattr(Bundle, "open", classmethod(open_and_swap))
    return waiting


def test_the_new_bundle_is_opened(swap: list[dict[str, bytes]], tmp_path: Path) -> None:
    swap.append(content_of(tiny_bundle.write(tmp_path / "new", NEW)))
    predictor = Predictor(tmp_path / "pets")
    assert not swap
    assert predictor.card == NEW
    assert predictor.bundle is not None and predictor.bundle.card == NEW


def test_a_model_file_that_the_new_bundle_lacks_is_not_called_missing(
    swap: list[dict[str, bytes]], tmp_path: Path
) -> None:
    new = content_of(tiny_bundle.write(tmp_path / "new", NEW))
    tiny_bundle.write_manifest(
        tmp_path / "new",
        NEW,
        {"model.int8.onnx": new["model.onnx"]},
        [],
        models={"int8": "model.int8.onnx"},
    )
    (tmp_path / "new/model.onnx").rename(tmp_path / "new/model.int8.onnx")
    swap.append(content_of(tmp_path / "new"))
    assert Predictor(tmp_path / "pets").card == NEW


def test_a_bundle_that_is_replaced_again_and_again_is_an_error(
    swap: list[dict[str, bytes]], tmp_path: Path
) -> None:
    cards = (tiny_bundle.card(temperature=2.0 + number) for number in range(3))
    for number, card in enumerate(cards):
        swap.append(content_of(tiny_bundle.write(tmp_path / f"new{number}", card)))
    with pytest.raises(BundleError, match="it was replaced after it was loaded"):
        Predictor(tmp_path / "pets")
