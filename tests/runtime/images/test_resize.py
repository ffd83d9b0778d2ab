"""The resize through Pillow, and the normalization, against the slow reference."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import resize_oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgetl.errors import ImageError
from edgetl.runtime.images.resize import normalize, resize_for_graph, resize_image
from edgetl.runtime.images.spec import PreprocessSpec

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
lengths = st.one_of(st.integers(1, 12), st.integers(1, 90))


def noise(height: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@st.composite
def specs(draw: st.DrawFn) -> PreprocessSpec:
    interpolation = draw(st.sampled_from(["bilinear", "bicubic"]))
    size: int | tuple[int, int]
    if draw(st.booleans()):
        resize, size = "squash", (draw(st.integers(1, 40)), draw(st.integers(1, 40)))
        smallest = size
    else:
        resize, size = "shorter_side", draw(st.integers(1, 40))
        smallest = (size, size)
    crop = (
        (draw(st.integers(1, smallest[0])), draw(st.integers(1, smallest[1])))
        if draw(st.booleans())
        else None
    )
    return PreprocessSpec(resize, size, interpolation, crop, MEAN, STD)  # type: ignore[arg-type]


@settings(max_examples=300, deadline=None)
@given(specs(), lengths, lengths, st.integers(0, 2**32 - 1))
def test_resize_equals_the_reference_bit_for_bit(
    spec: PreprocessSpec, height: int, width: int, seed: int
) -> None:
    pixels = noise(height, width, seed)
    resized = resize_image(Image.fromarray(pixels), spec)
    assert resized.shape == (*spec.output_size(height, width), 3)
    np.testing.assert_array_equal(resized, resize_oracle.resize(pixels, spec))


@settings(max_examples=300, deadline=None)
@given(specs(), lengths, lengths, st.integers(0, 2**32 - 1))
def test_resize_for_graph_leaves_only_the_crop_to_the_graph(
    spec: PreprocessSpec, height: int, width: int, seed: int
) -> None:
    pixels = noise(height, width, seed)
    fed = resize_for_graph(Image.fromarray(pixels), spec)
    fed_height, fed_width = fed.shape[:2]
    assert spec.resized_size(fed_height, fed_width) == (fed_height, fed_width), (
        "the graph would resize it again"
    )
    np.testing.assert_array_equal(
        resize_oracle.resize(fed, spec), resize_oracle.resize(pixels, spec)
    )


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("height", "width"),
    [
        (1, 1),
        (1, 400),
        (400, 1),
        (1200, 24),
        (24, 1200),
        (24, 24),
        (24, 31),
        (31, 24),
        (1230, 1180),
    ],
)
def test_extreme_shapes(height: int, width: int, interpolation: str) -> None:
    """Includes an axis that does not change, and tall images (Pillow 13 swaps its passes there)."""
    pixels = noise(height, width, 7)
    for resize, size, crop in (
        ("squash", (24, 24), None),
        ("shorter_side", 24, (23, 22)),
        ("squash", (24, 20), (9, 12)),
    ):
        spec = PreprocessSpec(resize, size, interpolation, crop, MEAN, STD)  # type: ignore[arg-type]
        np.testing.assert_array_equal(
            resize_image(Image.fromarray(pixels), spec), resize_oracle.resize(pixels, spec)
        )


@pytest.mark.parametrize(("resize", "size"), [("squash", (224, 224)), ("shorter_side", 256)])
def test_an_image_too_thin_to_resize_is_refused_before_memory_is_used(
    resize: str, size: int
) -> None:
    spec = PreprocessSpec(resize, size, "bilinear", (200, 200), MEAN, STD)  # type: ignore[arg-type]
    for function in (resize_image, resize_for_graph):
        with pytest.raises(ImageError, match="resizing 1×1000000 takes"):
            function(Image.new("RGB", (1, 1_000_000)), spec)


def test_images_of_every_shape_can_be_stacked() -> None:
    spec = PreprocessSpec("shorter_side", 12, "bilinear", (9, 9), MEAN, STD)
    shapes = {
        resize_for_graph(Image.fromarray(noise(h, w, 1)), spec).shape
        for h, w in [(12, 12), (5, 80), (80, 5)]
    }
    assert shapes == {(12, 12, 3)}


def test_normalization_is_pixel_over_255_minus_mean_over_std() -> None:
    spec = PreprocessSpec("squash", (4, 4), "bilinear", None, MEAN, STD)
    pixels = noise(4, 4, 3)[np.newaxis]
    expected = ((pixels / 255.0 - np.array(MEAN)) / np.array(STD)).transpose(0, 3, 1, 2)
    normalized = normalize(pixels, spec)
    assert normalized.dtype == np.float32
    assert normalized.flags.c_contiguous
    np.testing.assert_allclose(normalized, expected, atol=1e-6)


def test_normalization_rounds_after_each_step() -> None:
    spec = PreprocessSpec("squash", (1, 1), "bilinear", None, MEAN, STD)
    scale, bias = spec.normalization
    for value in range(256):
        expected = [np.float32(np.float32(value) * scale[c]) + bias[c] for c in range(3)]
        normalized = normalize(np.full((1, 1, 1, 3), value, np.uint8), spec)
        np.testing.assert_array_equal(normalized[0, :, 0, 0], np.array(expected, np.float32))


def test_a_resize_that_runs_out_of_memory_is_an_image_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def short(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("PIL.Image.Image.resize", short)
    with pytest.raises(ImageError, match="not enough memory"):
        resize_image(
            Image.new("RGB", (30, 40)),
            PreprocessSpec("squash", (20, 20), "bilinear", None, (0.5,) * 3, (0.5,) * 3),
        )
