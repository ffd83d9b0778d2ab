"""What an import says about labelled photos: how well they are answered, and why not better."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers.pictures import write_photo
from torch import Tensor, nn

from edgetl.data.image_folder import Sample
from edgetl.evaluation.true_labels import labelled_samples
from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.system.progress import no_progress
from edgetl.training.importing.labelled_photos import measure

# Swapping red and blue makes all of them look like ash most: no order of labels explains that.
COLOURS = {"ash": (80, 120, 80), "sky": (40, 180, 200), "ultramarine": (40, 40, 200)}
LABELS = tuple(COLOURS)
PER_CLASS = 8
SPEC = PreprocessSpec("squash", (16, 16), "bilinear", None, (0.4, 0.45, 0.5), (0.2, 0.25, 0.3))


class NearestColour(nn.Module):
    """Logits by the distance of the mean colour to each class's, for pixels normalized by ``spec``.

    order  of the outputs: indices of the classes
    """

    def __init__(self, spec: PreprocessSpec, order: tuple[int, ...] = (0, 1, 2)) -> None:
        super().__init__()
        colours = torch.tensor([list(COLOURS.values())[index] for index in order]) / 255.0
        self.register_buffer("colours", colours)
        self.mean, self.std = torch.tensor(spec.mean), torch.tensor(spec.std)

    def forward(self, normalized: Tensor) -> Tensor:
        colour = normalized.mean((2, 3)) * self.std + self.mean
        return -30 * (colour[:, None] - self.colours).square().sum(2)


class Bgr(nn.Module):
    """``network`` as one that was trained on what OpenCV reads."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, normalized: Tensor) -> Tensor:
        return self.network(normalized.flip(1))


class Chance(nn.Module):
    """Answers that have nothing to do with the colours."""

    def forward(self, normalized: Tensor) -> Tensor:
        return torch.sin(1e5 * normalized.mean((2, 3)))


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sample, ...]:
    folder = tmp_path_factory.mktemp("labelled")
    for seed, (label, colour) in enumerate(COLOURS.items()):
        for number in range(PER_CLASS):
            write_photo(folder / label / f"{number}.png", colour, 100 * seed + number, (20, 20))
    return labelled_samples(folder, LABELS)


def measured(
    network: nn.Module,
    samples: tuple[Sample, ...],
    spec: PreprocessSpec = SPEC,
    labels: tuple[str, ...] = LABELS,
) -> SimpleNamespace:
    metrics, warnings = measure(network.eval(), spec, labels, samples, no_progress)
    return SimpleNamespace(metrics=metrics, warnings=warnings)


def test_a_network_that_is_right_gets_metrics_and_no_warning(samples):
    found = measured(NearestColour(SPEC), samples)
    assert (found.metrics["accuracy"], found.metrics["photos"]) == (1.0, 3 * PER_CLASS)
    assert [row["label"] for row in found.metrics["classes"]] == list(LABELS)
    assert found.warnings == ()


def test_another_order_of_the_labels_is_noticed(samples):
    given = ("ultramarine", "ash", "sky")  # but the network's outputs are sorted by name
    relabelled = labelled_samples(samples[0].path.parents[1], given)
    found = measured(NearestColour(SPEC), relabelled, labels=given)
    assert found.metrics["accuracy"] == 0.0
    (warning,) = found.warnings
    assert "the labels are in another order, sorted by name (ash, sky, ultramarine)" in warning
    assert "24 of 24 photos would then be answered right; now 0 are" in warning


def test_a_network_of_bgr_photos_is_noticed(samples):
    bgr = replace(SPEC, mean=SPEC.mean[::-1], std=SPEC.std[::-1])
    (warning,) = measured(Bgr(NearestColour(SPEC)), samples, bgr).warnings
    assert "it was trained on BGR photos" in warning and "24 of 24" in warning


def test_another_mean_and_std_are_noticed(samples):
    half = replace(SPEC, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    whole = replace(SPEC, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    (warning,) = measured(NearestColour(half), samples, whole).warnings
    assert "--mean 0.5 0.5 0.5 --std 0.5 0.5 0.5" in warning


def test_chance_is_not_taken_for_a_mistake(samples):
    found = measured(Chance(), samples)
    assert found.metrics["accuracy"] < 0.6
    assert not any("It looks as if" in text for text in found.warnings)


def test_a_network_that_knows_nothing_is_told(samples):
    always = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3))
    nn.init.zeros_(always[1].weight)
    assert ["most frequent label" in text for text in measured(always, samples).warnings] == [True]


def test_photos_of_one_class_say_nothing_about_the_most_frequent_label(samples):
    found = measured(NearestColour(SPEC), samples[:PER_CLASS])
    assert found.metrics["accuracy"] == 1.0 and found.warnings == ()


def test_photos_that_can_not_be_read_are_named_and_left_out(tmp_path: Path, samples):
    for sample in samples[::4]:
        target = tmp_path / sample.path.parent.name / sample.path.name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(sample.path.read_bytes())
    (tmp_path / "ash/broken.png").write_bytes(b"no photo")
    found = measured(NearestColour(SPEC), labelled_samples(tmp_path, LABELS))
    assert (found.metrics["accuracy"], found.metrics["photos"]) == (1.0, 6)
    assert ["broken.png can't be read, and is left out" in text for text in found.warnings] == [
        True
    ]
