"""The resize in torch, in TorchScript and in ONNX operators, against the slow reference."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from helpers import resize_oracle
from helpers.resize_model import resize_model
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgetl.exporting.formats.onnx_preprocess import MIN_OPSET
from edgetl.exporting.formats.torch_preprocess import Preprocess
from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.runtime.inference.session import open_session

HALF = (0.5, 0.5, 0.5)
SPECS = {
    "squash": PreprocessSpec("squash", (24, 31), "bilinear", None, HALF, HALF),
    "squash, odd margins": PreprocessSpec("squash", (24, 31), "bicubic", (17, 20), HALF, HALF),
    "squash to one pixel": PreprocessSpec("squash", (1, 1), "bilinear", None, HALF, HALF),
    "shorter side": PreprocessSpec("shorter_side", 20, "bilinear", None, HALF, HALF),
    "shorter side, odd margins": PreprocessSpec(
        "shorter_side", 32, "bicubic", (27, 28), HALF, HALF
    ),
}
Resize = Callable[[np.ndarray], np.ndarray]  # uint8 [N, H, W, 3] → uint8 [N, h, w, 3]


def onnx_resize(spec: PreprocessSpec, opset: int = MIN_OPSET, *, optimize: bool = True) -> Resize:
    model = resize_model(spec, opset).SerializeToString()
    session = open_session(model, providers="cpu", threads=1, optimize=optimize)
    return lambda images: session.run(["resized"], {"images": images})[0]


def eager_resize(spec: PreprocessSpec) -> Resize:
    module = Preprocess(spec)
    return lambda images: module.resize(torch.from_numpy(images)).numpy()


def scripted_resize(spec: PreprocessSpec) -> Resize:
    class OnlyResize(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.preprocess = Preprocess(spec)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.preprocess.resize(images)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.jit.script(OnlyResize())
    return lambda images: module(torch.from_numpy(images)).numpy()


FORMS = {"onnx": onnx_resize, "eager": eager_resize, "scripted": scripted_resize}


@cache
def resize_of(form: str, spec: str) -> Resize:
    return FORMS[form](SPECS[spec])


@cache
def expected(spec: str, height: int, width: int, photos: int) -> np.ndarray:
    """What the reference makes of ``noise``, once for all forms: it is slow."""
    images = noise(height, width, photos=photos)
    return np.stack([resize_oracle.resize(picture, SPECS[spec]) for picture in images])


def noise(height: int, width: int, seed: int = 0, photos: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (photos, height, width, 3), np.uint8)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("spec", SPECS)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(height=st.integers(1, 160), width=st.integers(1, 160), photos=st.integers(1, 2))
@example(height=1, width=1, photos=1)
@example(height=1, width=160, photos=2)
@example(height=160, width=1, photos=1)
@example(height=24, width=31, photos=1)  # nothing to resize
@example(height=24, width=90, photos=1)  # only across
@example(height=90, width=31, photos=1)  # only down
@example(height=20, width=55, photos=2)
@example(height=55, width=32, photos=2)
@example(height=1200, width=26, photos=1)  # 50× downscaling, tall: where Pillow swaps its passes
@example(height=26, width=1600, photos=1)
def test_every_bit_equals_the_reference(
    form: str, spec: str, height: int, width: int, photos: int
) -> None:
    images = noise(height, width, photos=photos)
    resized = resize_of(form, spec)(images)
    np.testing.assert_array_equal(resized, expected(spec, height, width, photos))


@pytest.mark.parametrize("opset", [MIN_OPSET, 13, 14, 17, 20])
def test_every_opset_gives_the_same_bits(opset: int) -> None:
    spec = SPECS["shorter side, odd margins"]
    images = noise(75, 100)
    np.testing.assert_array_equal(
        onnx_resize(spec, opset)(images)[0], resize_oracle.resize(images[0], spec)
    )


def test_the_graph_needs_no_optimizer() -> None:
    spec = SPECS["squash, odd margins"]
    images = noise(75, 100)
    plain = onnx_resize(spec, optimize=False)(images)
    np.testing.assert_array_equal(plain[0], resize_oracle.resize(images[0], spec))


@pytest.mark.parametrize("form", FORMS)
def test_contrasts_that_overshoot_are_clipped(form: str) -> None:
    """Bicubic weights may be negative: black and white stripes give sums below 0 and above 255."""
    spec = PreprocessSpec("squash", (40, 40), "bicubic", None, HALF, HALF)
    stripes = np.zeros((1, 16, 16, 3), np.uint8)
    stripes[:, ::3, :, :] = 255
    stripes[:, :, ::5, :] = 255
    resized = FORMS[form](spec)(stripes)[0]
    np.testing.assert_array_equal(resized, resize_oracle.resize(stripes[0], spec))


@pytest.mark.parametrize("form", FORMS)
def test_a_resized_picture_is_not_changed_again(form: str) -> None:
    spec = SPECS["shorter side"]
    once = resize_of(form, "shorter side")(noise(50, 77))
    np.testing.assert_array_equal(resize_of(form, "shorter side")(once), once)
    assert once.shape[1:3] == spec.resized_size(50, 77)
