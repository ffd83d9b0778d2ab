"""The report's section on unknown photos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from edgetl.data.image_folder import Sample
from edgetl.evaluation import plots
from edgetl.evaluation.report_page import ReportPhoto, drawn, report_photos
from edgetl.runtime.bundle.held_out import HeldOut
from edgetl.runtime.bundle.unknown_limits import KEEP_KNOWN, UnknownLimits
from edgetl.training.evaluation.separation import KEPT_SHARES, Separation, separate

_MAX_PHOTOS = 12
_BINS = 40
_SHOWN_SHARE = 0.99  # of the scores: a few far ones would leave the others no room


@dataclass(frozen=True, eq=False)
class StrangePhotos:
    """Photos that the model is not to know.

    samples  N photos
    logits   float32 [N, classes]
    scores   float32 [N]
    """

    samples: Sequence[Sample]
    logits: NDArray[np.float32]
    scores: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class UnknownReport:
    """What is known of a detector.

    held_out     scores of known photos
    samples      these photos
    limits       which scores are those of unknown photos
    temperature  of the answers
    left_out     how well classes that are left out are told from the others, in the mean; None if
                 that can't be measured
    left_out_scores  float32 [N], of the photos of these classes
    strange      photos of ``unknown/``, or None
    """

    held_out: HeldOut
    samples: Sequence[Sample]
    limits: UnknownLimits
    temperature: float
    left_out: Separation | None
    left_out_scores: NDArray[np.float32]
    strange: StrangePhotos | None

    @property
    def refused(self) -> NDArray[np.int64]:
        """Rows of the known photos that would be refused, the strangest first."""
        order = np.argsort(-self.held_out.ood_score)
        return order[self.limits.is_unknown(self.held_out.ood_score[order])]

    @cached_property
    def folder(self) -> Separation | None:
        """How well the photos of ``unknown/`` are told from known ones."""
        if self.strange is None:
            return None
        return separate([(self.held_out.ood_score, self.strange.scores)])

    def figures(self) -> dict[str, Any]:
        """For metrics.json and the bundle, as JSON values."""
        measured = {"left_out_classes": self.left_out, "unknown_folder": self.folder}
        return {
            "photos": len(self.held_out.labels),
            **{name: found.figures() for name, found in measured.items() if found},
        }

    def section(self, labels: Sequence[str]) -> Mapping[str, Any]:
        """What the page's template needs."""
        kinds = {"classes left out": self.left_out, "photos of unknown/": self.folder}
        measured = {name: found for name, found in kinds.items() if found}
        return {
            "measured": measured,
            "held_out": len(self.held_out.labels),
            "histogram": drawn(self._histogram()),
            "curve": drawn(_curve(measured)) if measured else None,
            "refused": self._photos(
                labels, self.samples, self.held_out.logits, self.refused.tolist()
            ),
            "refused_count": len(self.refused),
            "strange": self._strangest(labels),
        }

    def _histogram(self) -> str:
        series = {"known, held out": self.held_out.ood_score}
        if self.left_out is not None:
            series["classes left out"] = self.left_out_scores
        if self.strange is not None:
            series["unknown/"] = self.strange.scores
        everything = np.concatenate(list(series.values()))
        edges = np.linspace(everything.min(), np.quantile(everything, _SHOWN_SHARE), _BINS + 1)
        lines = {}
        for name, scores in series.items():
            counts, _ = np.histogram(np.minimum(scores, edges[-1]), edges)
            lines[name] = ((edges[:-1] + edges[1:]) / 2, counts / len(scores))
        return plots.line_plot(
            "unknown-scores",
            {name: (x.tolist(), y.tolist()) for name, (x, y) in lines.items()},
            x="score: unlike the training photos\n(the last point counts all above, too)",
            y="share of photos",
            percent=True,
            chosen=self.limits.threshold,
        )

    def _strangest(self, labels: Sequence[str]) -> list[ReportPhoto]:
        """The photos of ``unknown/`` that are most like known ones, these first."""
        if self.strange is None:
            return []
        rows = np.argsort(self.strange.scores).tolist()
        names, other = [*labels, "unknown"], len(labels)
        samples = [Sample(found.path, other, found.digest) for found in self.strange.samples]
        return self._photos(names, samples, self.strange.logits, rows)

    def _photos(
        self,
        labels: Sequence[str],
        samples: Sequence[Sample],
        logits: NDArray[np.float32],
        rows: Sequence[int],
    ) -> list[ReportPhoto]:
        found = []
        for row in rows[:_MAX_PHOTOS]:
            answer = softmax(logits[row] / self.temperature)
            names = labels[samples[row].label], labels[answer.argmax()]
            found.append((samples[row].path, *names, float(answer.max())))
        return report_photos(found)


def _curve(measured: Mapping[str, Separation]) -> str:
    """Share of unknown photos let in against share of known ones kept."""
    return plots.line_plot(
        "unknown-tradeoff",
        {name: (KEPT_SHARES, found.curve) for name, found in measured.items()},
        x="share of known photos kept",
        y="share of unknown photos let in",
        percent=True,
        chosen=KEEP_KNOWN,
    )
