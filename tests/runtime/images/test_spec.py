"""The preprocessing specification: its geometry, its JSON, and its errors."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetl.errors import SpecError
from edgetl.runtime.images.spec import PreprocessSpec

GOOD: dict[str, Any] = {
    "version": 1,
    "resize": "shorter_side",
    "size": 256,
    "interpolation": "bilinear",
    "crop": [224, 224],
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}


def test_json_round_trip() -> None:
    spec = PreprocessSpec.from_dict(GOOD)
    assert spec.size == 256
    assert spec.crop == (224, 224)
    assert spec.to_dict() == GOOD
    assert PreprocessSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    squashed = PreprocessSpec.from_dict(
        {**GOOD, "resize": "squash", "size": [200, 300], "crop": None}
    )
    assert squashed.size == (200, 300)
    assert PreprocessSpec.from_dict(squashed.to_dict()) == squashed


@given(st.lists(st.floats(0.001, 1), min_size=6, max_size=6))
def test_json_keeps_every_digit(values: list[float]) -> None:
    spec = PreprocessSpec.from_dict({**GOOD, "mean": values[:3], "std": values[3:]})
    assert PreprocessSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"version": 2}, "version 2 is not known"),
        ({"version": None}, "version None is not known"),
        ({"resize": "stretch"}, "resize is 'stretch'"),
        ({"resize": ["squash"]}, "resize is"),
        ({"resize": "squash"}, "size is 256"),
        ({"size": [224, 224]}, "size is (224, 224)"),
        ({"size": 0}, "size is 0"),
        ({"size": 10**400}, "whole number from 1 to 65,536"),
        ({"size": 1.5}, "size is 1.5"),
        ({"size": True}, "size is True"),
        ({"size": "256"}, "size is '256'"),
        ({"interpolation": "nearest"}, "interpolation is 'nearest'"),
        ({"crop": [300, 224]}, "crop is (300, 224)"),
        ({"crop": [224, 257]}, "crop is (224, 257)"),
        ({"crop": [224]}, "crop is (224,)"),
        ({"crop": 224}, "crop is 224"),
        ({"crop": [0, 5]}, "crop is (0, 5)"),
        ({"mean": [0.5, 0.5]}, "mean is (0.5, 0.5)"),
        ({"mean": [0.5, 0.5, float("nan")]}, "mean is (0.5, 0.5, nan)"),
        ({"mean": 0.5}, "mean is 0.5"),
        ({"std": [0.5, 0.5, 0]}, "std is (0.5, 0.5, 0)"),
        ({"std": [0.5, -0.5, 1]}, "std is (0.5, -0.5, 1)"),
        ({"std": ["1", 1, 1]}, "std is ('1', 1, 1)"),
        ({"gamma": 2.2}, "unknown ['gamma']"),
    ],
)
def test_the_error_for_an_impossible_value_names_the_field(
    change: dict[str, Any], named: str
) -> None:
    with pytest.raises(SpecError) as caught:
        PreprocessSpec.from_dict({**GOOD, **change})
    assert named in str(caught.value)


@pytest.mark.parametrize("field", [name for name in GOOD if name != "version"])
def test_a_missing_field_is_named(field: str) -> None:
    with pytest.raises(SpecError, match=rf"missing \['{field}'\]"):
        PreprocessSpec.from_dict({name: value for name, value in GOOD.items() if name != field})


@pytest.mark.parametrize("values", [None, [], "spec", 3])
def test_a_spec_must_be_a_json_object(values: Any) -> None:
    with pytest.raises(SpecError, match="must be a JSON object"):
        PreprocessSpec.from_dict(values)


@settings(deadline=None)  # the first one imports torchvision
@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 512))
def test_shorter_side_has_the_geometry_of_torchvision(height: int, width: int, size: int) -> None:
    from torchvision.transforms.functional import _compute_resized_output_size

    spec = PreprocessSpec.from_dict({**GOOD, "size": size, "crop": None})
    assert list(spec.resized_size(height, width)) == _compute_resized_output_size(
        (height, width), [size]
    )


@pytest.mark.parametrize(
    ("resized", "crop", "origin"),
    [
        ((10, 10), (7, 5), (2, 2)),
        ((10, 13), (5, 8), (2, 2)),
        ((8, 8), (8, 8), (0, 0)),
        ((9, 11), (8, 8), (0, 2)),
    ],
)
def test_crop_origin_rounds_half_to_even(
    resized: tuple[int, int], crop: tuple[int, int], origin: tuple[int, int]
) -> None:
    spec = PreprocessSpec.from_dict({**GOOD, "size": 8, "crop": list(crop)})
    assert spec.crop_origin(*resized) == origin


def test_fixed_size() -> None:
    assert PreprocessSpec.from_dict(GOOD).fixed_size == (224, 224)
    assert PreprocessSpec.from_dict({**GOOD, "crop": None}).fixed_size is None
    assert PreprocessSpec.from_dict(
        {**GOOD, "resize": "squash", "size": [20, 30], "crop": None}
    ).fixed_size == (20, 30)


def test_the_text_of_a_spec() -> None:
    text = str(PreprocessSpec.from_dict(GOOD))
    for part in ("bilinear", "shorter side 256", "224×224", "0.485", "0.225"):
        assert part in text
