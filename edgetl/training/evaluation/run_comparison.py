"""What changed between two runs: their accuracy on the same photos, and the answers that differ."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgetl.data.image_folder import ImageFolders, Sample
from edgetl.data.photo_digests import short_digest
from edgetl.runtime.results.records import plain_name
from edgetl.system.paths import name_below
from edgetl.training.config.earlier_run import EarlierAnswer, EarlierRun
from edgetl.training.config.run_files import write_atomically
from edgetl.training.config.run_folder import COMPARISON

_NO_ANSWER = EarlierAnswer("", 0.0, True)


@dataclass(frozen=True)
class PairedAnswer:
    """What two runs answer for a photo that neither was fitted to.

    file    its name below the folder of the photos
    label   its class
    before, before_confidence  what the earlier run predicts, and how confidently, 0..1
    now, now_confidence        what this run predicts, and how confidently, 0..1
    is_new  whether the earlier run did not have the photo
    """

    file: str
    label: str
    before: str
    before_confidence: float
    now: str
    now_confidence: float
    is_new: bool

    @property
    def was_right(self) -> bool:
        """Whether the earlier run predicts its class."""
        return self.before == self.label

    @property
    def is_right(self) -> bool:
        """Whether this run predicts its class."""
        return self.now == self.label

    @property
    def is_flipped(self) -> bool:
        """Whether one of the two runs is right."""
        return self.was_right != self.is_right

    @property
    def mistake(self) -> tuple[str, float]:
        """The wrong one of two flipped answers, and its confidence."""
        if self.is_right:
            return self.before, self.before_confidence
        return self.now, self.now_confidence


@dataclass(frozen=True)
class PairedAccuracy:
    """How well two runs classify the same photos.

    photos  how many there are
    before  accuracy of the earlier run, 0..1; None without photos
    now     accuracy of this run, 0..1; None without photos
    lost    photos that were right before, and are wrong now
    gained  photos that were wrong before, and are right now
    chance  probability, 0..1, that two equally good models differ so much: a sign test
    """

    photos: int
    before: float | None
    now: float | None
    lost: int
    gained: int
    chance: float

    @classmethod
    def of(cls, answers: Iterable[PairedAnswer]) -> PairedAccuracy:
        """The accuracy in ``answers``."""
        pairs = [(answer.was_right, answer.is_right) for answer in answers]
        lost, gained, photos = pairs.count((True, False)), pairs.count((False, True)), len(pairs)
        both = pairs.count((True, True))
        tail = sum(math.comb(lost + gained, few) for few in range(min(lost, gained) + 1))
        chance = min(1.0, 2 * tail / 2 ** (lost + gained))
        before, now = ((both + more) / photos if photos else None for more in (lost, gained))
        return cls(photos, before, now, lost, gained, chance)


@dataclass(frozen=True)
class RunComparison:
    """What changed since an earlier run, on photos that neither was fitted to.

    run              the folder of the earlier run
    root             the folder that the names of photos are relative to
    validation       photos that both have validated on
    new              photos that the earlier run did not have, of classes that it knows
    classes_added    classes that only this run knows
    added            photos of these, all of them wrong before
    classes_removed  classes that only the earlier run knows
    photos_added, photos_removed  how many only this run, and only the earlier one, has
    left_out         validation photos that are not compared: the earlier run was trained on them
    flipped          right before and wrong now, then the reverse; the most confident mistakes first
    """

    run: str
    root: str
    validation: PairedAccuracy
    new: PairedAccuracy
    classes_added: tuple[str, ...]
    added: PairedAccuracy
    classes_removed: tuple[str, ...]
    photos_added: int
    photos_removed: int
    left_out: int
    flipped: tuple[PairedAnswer, ...]


def compare(
    earlier: EarlierRun,
    before: Mapping[str, EarlierAnswer],
    folders: ImageFolders,
    samples: Sequence[Sample],
    probabilities: NDArray[np.float32],
) -> RunComparison:
    """Compare the answers of two runs.

    before         SHA-256 → answer of the earlier run, for photos that it was not fitted to
    folders        all photos of this run
    samples        those of them whose answers are compared: this run was not fitted to these
    probabilities  float32 [N, classes], what this run answers for them
    """
    known: list[PairedAnswer] = []
    added: list[PairedAnswer] = []
    left_out = 0
    answers = zip(samples, probabilities.argmax(1).tolist(), probabilities.max(1), strict=True)
    for sample, predicted, confidence in answers:
        label = folders.classes[sample.label]
        was = before.get(sample.digest) if label in earlier.labels else _NO_ANSWER
        if was is None:
            left_out += 1
            continue
        name, now = name_below(sample.path, folders.root), folders.classes[predicted]
        answer = PairedAnswer(
            name, label, was.label, was.confidence, now, float(confidence), was.is_new
        )
        (added if was is _NO_ANSWER else known).append(answer)
    flipped = (answer for answer in known if answer.is_flipped)
    present = {short_digest(sample.digest) for sample in folders.train + folders.val}
    return RunComparison(
        run=str(earlier.folder),
        root=str(folders.root),
        validation=PairedAccuracy.of(answer for answer in known if not answer.is_new),
        new=PairedAccuracy.of(answer for answer in known if answer.is_new),
        classes_added=_only_in(folders.classes, earlier.labels),
        added=PairedAccuracy.of(added),
        classes_removed=_only_in(earlier.labels, folders.classes),
        photos_added=len(present - earlier.photos),
        photos_removed=len(earlier.photos - present),
        left_out=left_out,
        flipped=tuple(sorted(flipped, key=lambda one: (one.is_right, -one.mistake[1]))),
    )


def write_comparison(folder: Path, comparison: RunComparison) -> None:
    """Write ``since.json``. Raises CheckpointError."""
    values = asdict(comparison)
    for answer in values["flipped"]:
        answer["file"] = plain_name(answer["file"])
    text = json.dumps(values, indent=1, ensure_ascii=False) + "\n"
    write_atomically(folder / COMPARISON, lambda path: path.write_text(text, encoding="utf-8"))


def _only_in(one: Sequence[str], other: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in one if name not in other)
