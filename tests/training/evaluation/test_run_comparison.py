"""Two runs' answers for the same photos: what counts, and what can be chance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from edgetl.data.image_folder import ImageFolders, Sample
from edgetl.training.config.earlier_run import EarlierAnswer, EarlierRun
from edgetl.training.evaluation.run_comparison import PairedAccuracy, PairedAnswer, compare


def answered(before: str, now: str, count: int) -> list[PairedAnswer]:
    """Answers for photos of class "a"."""
    return [PairedAnswer("a/1.jpg", "a", before, 0.9, now, 0.8, False)] * count


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (1, 0), (3, 3), (2, 9), (12, 1)])
def test_accuracies_flips_and_chance(lost: int, gained: int) -> None:
    pairs = answered("a", "b", lost) + answered("b", "a", gained) + answered("a", "a", 4)
    found = PairedAccuracy.of([*pairs, *answered("b", "c", 2)])
    photos = lost + gained + 6
    assert (found.photos, found.lost, found.gained) == (photos, lost, gained)
    assert found.before == pytest.approx((lost + 4) / photos)
    assert found.now == pytest.approx((gained + 4) / photos)
    expected = binomtest(lost, lost + gained).pvalue if lost + gained else 1.0
    assert found.chance == pytest.approx(expected)


def test_without_photos_there_is_no_accuracy() -> None:
    assert PairedAccuracy.of([]) == PairedAccuracy(0, None, None, 0, 0, 1.0)


def test_a_photo_whose_label_was_corrected_counts_with_the_label_of_now() -> None:
    digests = [f"{number:02x}" * 32 for number in range(1, 5)]
    samples = tuple(
        Sample(Path(f"/photos/{number}.jpg"), label, digest)
        for number, (label, digest) in enumerate(zip((0, 1, 2, 0), digests, strict=True))
    )
    folders = ImageFolders(Path("/photos"), ("a", "b", "c"), samples[3:], samples[:3])
    before = {
        digests[0]: EarlierAnswer("b", 0.6, is_new=False),
        digests[1]: EarlierAnswer("b", 0.7, is_new=False),
        digests[2]: EarlierAnswer("a", 0.8, is_new=False),  # moved into a class that is new
    }
    earlier = EarlierRun(Path("runs/old"), ("a", "b", "gone"), frozenset(), before)
    probabilities = np.eye(3, dtype=np.float32)[[0, 0, 2]]
    found = compare(earlier, before, folders, folders.val, probabilities)
    assert (found.validation.photos, found.validation.lost, found.validation.gained) == (2, 1, 1)
    assert [(one.file, one.label, one.before, one.now) for one in found.flipped] == [
        ("1.jpg", "b", "b", "a"),
        ("0.jpg", "a", "b", "a"),
    ]
    assert (found.added.photos, found.added.before, found.added.now) == (1, 0.0, 1.0)
    assert (found.classes_added, found.classes_removed) == (("c",), ("gone",))
    assert (found.photos_added, found.photos_removed, found.left_out) == (1, 0, 0)
