"""HEIC and HEIF: the decoding policy, and what is said where there is no decoder."""

from __future__ import annotations

import json
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pi_heif
import pytest
from click.testing import CliRunner
from helpers.heic import LOSSLESS, deep_heic, heic
from helpers.pictures import photo
from helpers.tiny_network import tiny_card, tiny_network
from helpers.training_runs import features_of, train
from PIL import Image

from edgetl import ImageError, Predictor
from edgetl.cli.main import command as program
from edgetl.data.audit import audit_folder
from edgetl.errors import DataError
from edgetl.exporting.bundle_writer import export_bundle
from edgetl.exporting.deployment import Deployment
from edgetl.runtime.images.decode import read_image
from edgetl.training.config.listener import Listener
from edgetl.training.config.recipes import resolve
from edgetl.training.engine.run_photos import find_photos

PICTURE = photo(1, 80, 60)
PIXELS = np.asarray(PICTURE)
FILE = heic(PICTURE, **LOSSLESS)


@pytest.fixture
def no_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("pi_heif", "pillow_heif"):
        monkeypatch.setitem(sys.modules, package, None)


def pixels(content: bytes) -> np.ndarray:
    image = read_image(content)
    assert image.mode == "RGB"
    return np.asarray(image)


def turned(orientation: int) -> bytes:
    """EXIF data."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def test_a_lossless_file_gives_its_pixels() -> None:
    assert np.array_equal(pixels(FILE), PIXELS)


@pytest.mark.parametrize("brand", [b"heic", b"hevx", b"mif1", b"msf1"])
def test_every_brand_is_recognised_by_content(brand: bytes, tmp_path: Path) -> None:
    path = tmp_path / "named.jpg"
    path.write_bytes(FILE[:8] + brand + FILE[12:])
    assert np.array_equal(np.asarray(read_image(path)), PIXELS)


def test_pillow_heif_is_used_where_pi_heif_is_not_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    assert np.array_equal(pixels(FILE), PIXELS)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_that_is_rotated_in_container_and_exif_is_turned_once(orientation: int) -> None:
    png = BytesIO()
    PICTURE.save(png, "PNG", exif=turned(orientation))
    file = heic(PICTURE, exif=turned(orientation), **LOSSLESS)
    said = pi_heif.HeifImageFile(BytesIO(file)).info["original_orientation"]
    assert said == (orientation if orientation > 1 else None), "the EXIF data says it, too"
    assert np.array_equal(pixels(file), pixels(png.getvalue()))


def test_a_rotation_in_the_exif_data_alone_is_ignored_as_the_format_demands() -> None:
    file = heic(PICTURE, exif=turned(6), **LOSSLESS)
    assert file.count(b"irot") == 1
    assert np.array_equal(pixels(file.replace(b"irot", b"free")), PIXELS)


@pytest.mark.parametrize("bits", [10, 12])
def test_deep_colour_without_loss_gives_the_high_byte(bits: int) -> None:
    deep = np.random.default_rng(0).integers(0, 1 << 16, (60, 80, 3), dtype=np.uint16)
    assert np.array_equal(pixels(deep_heic(deep, bits)), deep >> 8)


def test_gray_and_alpha_on_white() -> None:
    gray, white = PICTURE.convert("L"), np.uint8(255)
    assert np.array_equal(pixels(heic(gray, quality=-1))[..., 0], np.asarray(gray))
    clear = PICTURE.convert("RGBA")
    clear.putalpha(Image.new("L", PICTURE.size, 0))
    assert (pixels(heic(clear, **LOSSLESS)) == white).all()


def test_the_pixel_limit_holds_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pi_heif.HeifImageFile, "load", lambda _: pytest.fail("decoded"))
    with pytest.raises(ImageError, match=r"80×60 = 4,800 pixels; the limit is 4,799"):
        read_image(FILE, max_pixels=4799)


def test_a_size_that_is_not_the_true_one_is_refused() -> None:
    at = FILE.index(b"ispe") + 8
    for width in (8, 20_000):
        lying = FILE[:at] + width.to_bytes(4, "big") + FILE[at + 4 :]
        with pytest.raises(ImageError):
            read_image(lying, max_pixels=10**10)


def test_a_download_that_was_cut_short_is_refused() -> None:
    whole = heic(photo(2, 320, 240))
    with pytest.raises(ImageError, match="nexpected end of file"):
        read_image(whole[:-1])
    with pytest.raises(ImageError, match="it is truncated: zeros in place of the last bytes"):
        read_image(whole[:-2000] + bytes(2000))


def test_a_file_too_long_for_a_photo_is_not_read_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.heic"
    path.write_bytes(FILE)
    with path.open("r+b") as file:
        file.truncate((1 << 30) + 1)  # a hole, which takes no space
    with pytest.raises(ImageError, match="longer than 1024 MiB"):
        read_image(path)


def test_an_item_whose_type_is_not_text_is_refused() -> None:
    """pi-heif 1.4.0 would end the process."""
    tagged = heic(PICTURE, exif=turned(6))
    assert tagged.count(b"Exif\0") > 0
    with pytest.raises(ImageError, match="an item's type is not text"):
        read_image(tagged.replace(b"Exif\0", b"\xc5xif\0", 1))


def test_without_a_decoder_the_error_says_what_to_install(no_decoder: None) -> None:
    with pytest.raises(ImageError) as caught:
        read_image(FILE)
    assert caught.value.reason == (
        'it is a HEIC photo, which needs pi-heif: pip install "edgetl[heic]"'
    )
    assert "heif-convert" in str(caught.value.hint) and "sips" in str(caught.value.hint)


def test_data_check_knows_the_suffixes(two_parts: Path) -> None:
    folder = two_parts / "train/ash"
    for name in ("a.heic", "b.HIF", "c.jpg"):
        (folder / name).write_bytes(heic(photo(ord(name[0]), 40, 40)))
    (folder / "d.heic").write_bytes((folder / "000.png").read_bytes() + b"\0")
    wrong = [issue for issue in audit_folder(two_parts).findings if "suffix" in issue.kind]
    assert sorted(path for issue in wrong for path in issue.paths) == [
        "train/ash/c.jpg",
        "train/ash/d.heic",
    ]


def test_heic_photos_in_val_are_listed_with_all_others_before_anything_is_computed(
    two_parts: Path, no_decoder: None
) -> None:
    (two_parts / "val/ash/a.heic").write_bytes(FILE)
    cut = two_parts / "val/brick/100.png"
    cut.write_bytes(cut.read_bytes()[:-40])
    with pytest.raises(DataError) as caught:
        find_photos(resolve(two_parts, {}, cuda=False), Listener())
    assert "2 photos to validate on can't be read" in caught.value.message
    assert "val/ash/a.heic: it is a HEIC photo" in caught.value.message
    assert 'pip install "edgetl[heic]"' in caught.value.message
    assert "val/brick/100.png: it is damaged" in caught.value.message


def test_predict_takes_heic_photos(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(FILE)
    PICTURE.save(tmp_path / "b.png")
    done = CliRunner().invoke(program, ["predict", str(tiny_bundle), str(tmp_path), "--json"])
    first, second = map(json.loads, done.stdout.splitlines())
    assert first["source"].endswith("a.heic") and "error" not in first
    assert {**first, "source": ""} == {**second, "source": ""}


def test_a_bundle_needs_no_decoder_for_its_golden_photos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.heic").write_bytes(FILE)
    bundle = export_bundle(
        Deployment(tiny_network(), tiny_card()), tmp_path / "bundle", golden=[tmp_path / "a.heic"]
    ).folder
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert (bundle / "golden/000.png").is_file()
    assert Predictor(bundle).selftest().passed


def test_a_run_trains_on_heic_photos(two_parts: Path, tmp_path: Path) -> None:
    for path in two_parts.rglob("*.png"):
        with Image.open(path) as picture:
            path.with_suffix(".heic").write_bytes(heic(picture, **LOSSLESS))
        path.unlink()
    metrics = train(features_of(two_parts), tmp_path / "run").metrics
    assert metrics["accuracy"] == 1
