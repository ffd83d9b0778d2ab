"""The validation photos and the scores of logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.photo_samples import assorted_photos

from edgetl.runtime.images.decode import read_image
from edgetl.runtime.images.resize import resize_image
from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.training.evaluation.validation import Scores, Validation, scores
from edgetl.training.torch_env.distributed import Processes

SPEC = PreprocessSpec("shorter_side", 40, "bilinear", (32, 32), (0.5,) * 3, (0.5,) * 3)
CPU = Processes(torch.device("cpu"))


def test_validation_sees_what_the_predictor_sees_with_stored_photos_and_without(
    tmp_path, monkeypatch
):
    photos = assorted_photos(tmp_path)

    class Mean(torch.nn.Module):
        def forward(self, images):
            return images.flatten(1)[:, ::97]

    exact = [resize_image(read_image(sample.path), SPEC) for sample in photos[:5]]
    expected = torch.from_numpy(np.stack(exact)).permute(0, 3, 1, 2).float() / 127.5 - 1
    stored = Validation(photos[:5], SPEC, CPU, tmp_path, threads=1)
    monkeypatch.setattr("edgetl.training.evaluation.validation.allocate", lambda *_: None)
    without = Validation(photos[:5], SPEC, CPU, tmp_path, threads=2)
    for validation in (stored, without):
        assert np.abs(validation.logits(Mean()) - expected.flatten(1)[:, ::97].numpy()).max() < 1e-6
    assert sorted(
        path.name for path in Validation(photos, SPEC, CPU, tmp_path, threads=2).unreadable
    ) == ["5.jpg", "6.jpg"]


def test_scores_equal_those_of_torch():
    logits = torch.randn(50, 4) * 30
    labels = torch.arange(50) % 4
    result = scores(logits.numpy(), labels.numpy())
    assert result.loss == pytest.approx(
        torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-5
    )
    assert result.accuracy == (logits.argmax(1) == labels).double().mean().item()


def test_accuracy_decides_then_the_tempered_loss():
    assert Scores(0.9, 1.0, 1.0).better_than(Scores(0.8, 0.1, 0.1))
    assert Scores(0.9, 0.7, 0.5).better_than(Scores(0.9, 0.6, 0.6))
    assert not Scores(0.9, 0.5, 0.6).better_than(Scores(0.9, 0.6, 0.6))
    assert Scores(0.0, 9.0, 9.0).better_than(None)


def test_confidence_alone_does_not_make_logits_better():
    logits, labels = np.array([[2.0, 0.0], [0.5, 1.0], [1.0, 0.2]], np.float32), np.array([0, 1, 1])
    sure, unsure = scores(4 * logits, labels), scores(logits / 4, labels)
    assert sure.loss != pytest.approx(unsure.loss)
    assert sure.tempered == pytest.approx(unsure.tempered)
    assert sure.tempered <= min(sure.loss, unsure.loss)
