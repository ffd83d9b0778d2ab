"""What the earlier run answers for the photos on which a new one is compared with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from edgetl.data.image_folder import ImageFolders, Sample
from edgetl.errors import EdgetlError
from edgetl.system.machine import cores
from edgetl.training.config.earlier_run import EarlierAnswer, EarlierRun
from edgetl.training.config.run_context import RunContext
from edgetl.training.evaluation.run_comparison import RunComparison, compare
from edgetl.training.evaluation.validation import Validation
from edgetl.training.head.cross_validation import CVResult
from edgetl.training.head.features import Features, compute_features
from edgetl.training.models import checkpoint
from edgetl.training.models.checkpoint import Trained
from edgetl.training.models.multi_level import find_levels
from edgetl.training.torch_env.distributed import Processes

_STEP = "Classifying by the earlier run"


@dataclass(frozen=True)
class EarlierAnswers:
    """The answers of an earlier run for the photos of a new one.

    answers  SHA-256 (hex) of a photo → answer, for photos that the earlier run was not fitted to
    """

    run: EarlierRun
    answers: Mapping[str, EarlierAnswer]

    def compare(
        self,
        folders: ImageFolders,
        probabilities: NDArray[np.float32],
        cross_validation: CVResult | None,
    ) -> RunComparison:
        """Compare with the new run.

        probabilities     float32 [N, classes] of the new run for its validation photos
        cross_validation  of the new run's head, if that is all that was trained: what it answers
                          for photos to train on
        """
        new = _new_photos(self.run, folders, cross_validation)
        samples = [*folders.val, *new.values()]
        if cross_validation and new:
            out_of_fold = softmax(cross_validation.logits[list(new)], axis=1)
            probabilities = np.concatenate([probabilities, out_of_fold])
        return compare(self.run, self.answers, folders, samples, probabilities)


def ask_earlier_run(
    context: RunContext,
    folders: ImageFolders,
    cross_validation: CVResult | None = None,
    features: Features | None = None,
) -> EarlierAnswers | None:
    """What the run that ``context`` names answers for the photos to compare; None without one.

    These are the validation photos, and the photos to train on that it did not have and that
    ``cross_validation`` has judged. Where it has validated on a photo itself, its answer of then
    counts: its weights may since have been fitted to the photo. If it can't be asked, a note says
    why: the new run is complete without it.

    features  of the photos of the new run, which may serve both
    """
    earlier = context.since
    if earlier is None:
        return None
    new = _new_photos(earlier, folders, cross_validation)
    samples = [*folders.val, *new.values()]
    distinct = {sample.digest: sample for sample in samples}
    answers = {digest: earlier.validated[digest] for digest in distinct.keys() & earlier.validated}
    unseen = [sample for digest, sample in distinct.items() if not earlier.had(digest)]
    try:
        if unseen:
            answers |= _classify(checkpoint.load(earlier.folder), context, unseen, features)
    except EdgetlError as error:
        context.listener.note(f"Not compared with {earlier.folder}: {error.message}")
        return None
    return EarlierAnswers(earlier, answers)


def _new_photos(
    earlier: EarlierRun, folders: ImageFolders, cross_validation: CVResult | None
) -> dict[int, Sample]:
    """Row of ``cross_validation`` → its photo, for photos that the earlier run did not have."""
    photos = [] if cross_validation is None else cross_validation.photos.tolist()
    samples = ((row, folders.train[photo]) for row, photo in enumerate(photos))
    return {row: sample for row, sample in samples if not earlier.had(sample.digest)}


def _classify(
    trained: Trained, context: RunContext, samples: Sequence[Sample], features: Features | None
) -> dict[str, EarlierAnswer]:
    """SHA-256 → answer, of those photos that can be read."""
    readable, logits = _logits(trained, context, samples, features)
    probabilities = softmax(logits / trained.card.temperature, axis=1)
    return {
        sample.digest: EarlierAnswer(
            trained.card.labels[answer.argmax()], float(answer.max()), is_new=True
        )
        for sample, answer in zip(readable, probabilities, strict=True)
    }


def _logits(
    trained: Trained, context: RunContext, samples: Sequence[Sample], features: Features | None
) -> tuple[list[Sample], NDArray[np.float32]]:
    """(the photos that can be read, their logits: float32 [N, classes])."""
    backbone = trained.as_backbone()
    if not backbone.has_linear_head:
        return _logits_by_network(trained, context, samples)
    layer = backbone.head_layer
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    # A new run's features are computed with levels, before a head can do without them.
    levels = backbone.levels or find_levels(backbone)
    found = compute_features(context, backbone, samples, step=_STEP, known=features, levels=levels)
    readable = found.readable(samples)
    if not readable:
        return [], np.empty((0, len(bias)), np.float32)
    return readable, found.of(readable)[:, : weight.shape[1]] @ weight.T + bias


def _logits_by_network(
    trained: Trained, context: RunContext, samples: Sequence[Sample]
) -> tuple[list[Sample], NDArray[np.float32]]:
    """``_logits`` for a network whose head is not one linear layer."""
    photos = Validation(
        samples,
        trained.card.spec,
        Processes(context.device),
        context.folder,
        threads=context.settings.workers or cores(),
        progress=context.listener.progress,
    )
    readable = [sample for sample in samples if sample.path not in photos.unreadable]
    if not readable:
        return [], np.empty((0, len(trained.card.labels)), np.float32)
    return readable, photos.logits(trained.network.to(context.device))
