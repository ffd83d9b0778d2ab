"""Where a trained network looked: in the report, and said where it is a mark."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from helpers.training_runs import Notebook, context_of, features_of, train
from PIL import Image

from edgetl.data.image_folder import scan
from edgetl.training.config.run_folder import REPORT
from edgetl.training.evaluation.explained_answers import explain_answers
from edgetl.training.evaluation.explainer import Explainer
from edgetl.training.models import checkpoint

SIDE, MARK = 160, 26  # pixels


def write_data(folder: Path, *, is_marked: bool) -> Path:
    """Two classes of the same noise; those of ``logo`` may bear a mark in the corner."""
    for part, count in (("train", 12), ("val", 8)):
        for number, label in enumerate(("logo", "plain")):
            (folder / part / label).mkdir(parents=True)
            for photo in range(count):
                rng = np.random.default_rng([number, photo, count])
                coarse = rng.integers(60, 190, (10, 10, 3), np.uint8)
                picture = Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
                if is_marked and label == "logo":
                    picture.paste((255, 0, 255), (4, 4, 4 + MARK, 4 + MARK))
                picture.save(folder / part / label / f"{photo}.png")
    return folder


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[str]]:
    """(data, run, notes) of a run on photos with a mark."""
    folder, listener = tmp_path_factory.mktemp("marked"), Notebook()
    data = write_data(folder / "data", is_marked=True)
    train(features_of(data, "timm/test_resnet"), folder / "run", listener=listener)
    return data, folder / "run", listener.notes


def test_a_mark_that_a_run_has_learned_is_named(marked):
    _, run, notes = marked
    (note,) = (note for note in notes if note.startswith("What speaks for"))
    assert note.startswith("What speaks for 'logo' lies at the top left of its photos")
    assert f"edgetl explain {run} PHOTO -o map.png" in note
    assert "lies at the top left" in (run / REPORT).read_text()


def test_it_looks_for_marks_in_what_speaks_for_the_true_label(marked, monkeypatch):
    data, run, _ = marked
    asked, plain = [], Explainer.evidence_for

    def evidence_for(self, photos):
        asked.extend(photos)
        return plain(self, photos)

    monkeypatch.setattr(Explainer, "evidence_for", evidence_for)
    photos = scan(data).val
    answers = np.full((len(photos), 2), 0.5, np.float32)
    settings = features_of(data, "timm/test_resnet")
    explain_answers(context_of(settings, run), checkpoint.load(run), photos, answers)
    assert sorted(asked) == [(photo.path, photo.path.parent.name) for photo in photos]


def test_without_a_mark_nothing_is_said(tmp_path):
    listener = Notebook()
    data = write_data(tmp_path / "data", is_marked=False)
    train(features_of(data, "timm/test_resnet"), tmp_path / "run", listener=listener)
    assert not any(note.startswith("What speaks for") for note in listener.notes)
    page = (tmp_path / "run" / REPORT).read_text()
    assert page.count('alt="what speaks for') == page.count('class="pair"') > 0


def test_exact_evidence_and_occlusion_point_at_the_mark(marked):
    data, run, _ = marked
    explainer = Explainer(checkpoint.load(run))
    photo = data / "val/logo/0.png"
    (evidence,) = explainer.evidence_for([(photo, "logo")])
    assert evidence is not None
    assert np.unravel_index(evidence.argmax(), evidence.shape) == (0, 0)
    covered = explainer.by_occlusion(photo, 0)
    assert covered.shape == (SIDE, SIDE)
    y, x = np.unravel_index(covered.argmax(), covered.shape)
    assert max(y, x) < 2 * MARK


def test_several_photos_are_explained_as_each_by_itself(marked, tmp_path):
    data, run, _ = marked
    explainer = Explainer(checkpoint.load(run))
    photos = sorted(data.glob("val/*/*.png"))[:5]
    found = explainer.evidence_for([(path, "plain") for path in [tmp_path / "gone", *photos]])
    assert found[0] is None
    for photo, evidence in zip(photos, found[1:], strict=True):
        np.testing.assert_array_equal(evidence, explainer(photo).evidence_for("plain"))


def test_photos_that_are_explained_at_the_same_time_do_not_mix(marked, monkeypatch):
    data, run, _ = marked
    trained = checkpoint.load(run)
    explainer = Explainer(trained)
    photos = sorted(data.glob("val/*/0.png"))
    alone = [explainer(photo).evidence_for("plain") for photo in photos]
    both = threading.Barrier(len(photos), timeout=60)

    def wait(*_: object) -> None:
        both.wait()

    trained.network.register_forward_pre_hook(wait)
    trained.network.register_forward_hook(wait)
    monkeypatch.setattr("edgetl.training.evaluation.explainer.cores", lambda: len(photos))
    found = explainer.evidence_for([(photo, "plain") for photo in photos])
    np.testing.assert_array_equal(found, alone)
