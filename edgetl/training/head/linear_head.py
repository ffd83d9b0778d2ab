"""The head on frozen features: multinomial logistic regression, a convex problem with one answer, solved directly.

Its strength C (the inverse of the penalty on the weights) is chosen by cross-validation inside the training photos;
validation photos are never looked at. A penalty also shrinks the logits, which says nothing about who is right: so
strengths are compared by the log loss at the best temperature of each, and that temperature is part of the solution.
Centring, scaling and temperature fold into the weights: what comes out is one linear layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial, reduce
from threading import Event
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax
from torch import Tensor

from edgetl.errors import TrainingError
from edgetl.training.head.temperature import fit_temperature
from edgetl.training.torch_env.full_precision import full_precision
from edgetl.training.torch_env.threads import one_thread

STRENGTHS = tuple(
    10.0 ** (exponent / 2) for exponent in range(-8, 5)
)  # 1e-4 … 100, from the strongest penalty on
DEFAULT_STRENGTH = 10.0**-1  # where there are too few photos to choose
_SHRINKAGE = 1.0  # see _Scaling
_FOLDS = 5
_PATIENCE = (
    2  # strengths in a row without a better loss, after which weaker penalties are not tried
)
_CV_PHOTOS = 20_000  # the strength is chosen on so many at most: it hardly moves with more
_CV_LOGITS = 1_000_000  # photos × classes above which two folds have to do
_FEWEST_JUDGED = 20  # photos, below which their spread says nothing of the error of their mean
_CHUNK = 1 << 24  # logits held at a time
_SMALL = 400_000_000  # products in one pass, some 3 s of work on one core: below that, others wait more than they help
_CV_STEPS = 12  # of L-BFGS, from the solution at the strength before: more did not move the choice
_FINAL_STEPS = 500
_GRADIENT, _CHANGE = 1e-6, 1e-8  # where the final solution stops: largest slope, smallest step


@dataclass(frozen=True)
class Trial:
    """One strength, tried by cross-validation, on photos left out.

    temperature  the one of the least loss
    loss         mean log loss at that temperature, nats
    accuracy     0..1
    """

    strength: float
    temperature: float
    loss: float
    accuracy: float


class LabelIssue(NamedTuple):
    """A photo that was taken for another class by a head that was fitted without it.

    photo       its row
    predicted   the class it was taken for
    confidence  in that class, 0..1
    """

    photo: int
    predicted: int
    confidence: float


@dataclass(frozen=True)
class Head:
    """A linear classifier on raw features: logits = features @ weight.T + bias.

    weight    float32 [classes, features]
    bias      float32 [classes]
    strength  the C that was used
    trials    every strength that was tried, empty where there were too few photos to choose
    doubts    surest first: where labels are wrong, here they show (Northcutt et al., Confident Learning, 2021)
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    strength: float
    trials: tuple[Trial, ...]
    doubts: tuple[LabelIssue, ...] = ()

    def logits(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 [N, features] → [N, classes]."""
        return features @ self.weight.T + self.bias

    def divided(self, temperature: float) -> Head:
        """The head whose logits are these, divided by ``temperature``."""
        return replace(
            self,
            weight=self.weight / np.float32(temperature),
            bias=self.bias / np.float32(temperature),
        )


def fit_head(
    features: NDArray[np.float32],
    labels: Sequence[int] | NDArray[np.int64],
    classes: int,
    *,
    digests: Sequence[str] | None = None,
    strength: float | None = None,
    class_weights: Sequence[float] | None = None,
    widths: Sequence[int] = (),
    device: torch.device | None = None,
) -> Head:
    """Fit the head.

    features       float32 [N, features]
    labels         N whole numbers in 0..classes-1
    digests        what each photo is told apart by: copies of one fall into one fold (default: all differ)
    strength       C above 0, as in sklearn's LogisticRegression on features of unit variance; None: cross-validate
    class_weights  weight of each class's photos in the loss (default: all 1)
    widths         how many of the features, from the first on, may be used, in order of preference: a later number
                   is where it makes the cross-validated loss less by more than one standard error (default: all)
    device         where it is computed (default: the CPU)

    The same input gives the same bits. Raises TrainingError for fewer than two classes or features that are not finite.
    """
    values = torch.from_numpy(features).to(device)
    photos = _Photos.of(labels, classes, digests, class_weights, values)
    with photos.computing(values):
        candidates = photos.candidates(
            [values[..., :width] for width in widths or (values.shape[-1],)], strength
        )
        return reduce(_better, candidates).head(strength)


def gain(
    features: NDArray[np.float32],
    over: NDArray[np.float32],
    labels: Sequence[int] | NDArray[np.int64],
    classes: int,
    *,
    digests: Sequence[str] | None = None,
    class_weights: Sequence[float] | None = None,
    device: torch.device | None = None,
) -> float:
    """By how many standard errors ``features`` make the cross-validated loss less than others of the same photos do.

    The arguments are those of ``fit_head``. Below 0 where they do worse, 0 where there are too few photos to tell.
    Raises TrainingError as ``fit_head`` does.
    """
    both = [torch.from_numpy(values).to(device) for values in (over, features)]
    photos = _Photos.of(labels, classes, digests, class_weights, *both)
    with photos.computing(both[0]):
        return _gain(*photos.candidates(both, None))


@dataclass(frozen=True)
class _Photos:
    """What is known of photos besides their features.

    targets  int64 [photos]
    weights  float32 [photos], above 0
    ranks    see ``_ranks``
    """

    targets: Tensor
    weights: Tensor
    classes: int
    ranks: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        labels: Sequence[int] | NDArray[np.int64],
        classes: int,
        digests: Sequence[str] | None,
        class_weights: Sequence[float] | None,
        *features: Tensor,
    ) -> _Photos:
        """As ``fit_head`` takes them, for any of ``features``. Raises TrainingError where no head can be fitted."""
        device = features[0].device
        targets = torch.as_tensor(np.asarray(labels), dtype=torch.long, device=device)
        if classes < 2 or not len(targets):
            raise TrainingError(
                f"A head can't be fitted to {len(targets)} photos of {classes} classes."
            )
        if not all(torch.isfinite(values).all() for values in features):
            raise TrainingError(
                "The backbone's features are not finite numbers, so no head can be fitted to them.",
                "Are its weights damaged? Try others with --weights FILE.",
            )
        weights = (
            torch.ones(classes)
            if class_weights is None
            else torch.tensor(class_weights, dtype=torch.float32)
        )
        return cls(
            targets, weights.to(device)[targets], classes, _ranks(targets.cpu().numpy(), digests)
        )

    def is_small(self, values: Tensor) -> bool:
        return values.numel() * self.classes * _FOLDS < _SMALL

    @contextmanager
    def computing(self, values: Tensor) -> Iterator[None]:
        """In full precision, and in one thread where the problem is small."""
        with full_precision(), one_thread(self.is_small(values)):
            yield

    def candidates(self, features: Sequence[Tensor], strength: float | None) -> list[_Candidate]:
        """A head on each of ``features``, float32 [photos, features]; small ones side by side on the cores of a CPU."""
        stop = Event()
        compute = partial(self.candidate, strength=strength, stop=stop)
        if (
            len(features) == 1
            or features[0].device.type != "cpu"
            or not self.is_small(features[-1])
        ):
            return [compute(values) for values in features]
        with ThreadPoolExecutor(len(features)) as pool:
            try:
                return list(pool.map(compute, features))
            except BaseException:  # Ctrl-C, which would wait for them
                stop.set()
                raise

    def candidate(self, values: Tensor, strength: float | None, stop: Event) -> _Candidate:
        """A head on ``values``, float32 [photos, features], cross-validated unless its strength is given."""
        scaling = _Scaling.of(values)
        problem = _Problem(scaling.apply(values), self.targets, self.weights, self.classes)
        return _Candidate(
            scaling, problem, None if strength else _cross_validate(problem, self.ranks, stop)
        )


@dataclass(frozen=True)
class _Validated:
    """What cross-validation found.

    best      the trial of the least loss
    solution  the mean over its folds
    losses    float64 [photos], of each photo when it was left out of the best trial, weighted
    doubts    see ``Head``
    """

    trials: tuple[Trial, ...]
    best: Trial
    solution: Tensor
    losses: NDArray[np.float64]
    doubts: tuple[LabelIssue, ...]


@dataclass(frozen=True)
class _Candidate:
    """A head that may be chosen. validated: None where no strength was tried."""

    scaling: _Scaling
    problem: _Problem
    validated: _Validated | None

    def head(self, strength: float | None) -> Head:
        found = self.validated
        best = found.best if found else Trial(strength or DEFAULT_STRENGTH, 1.0, 0.0, 0.0)
        solution = self.problem.solve(
            best.strength, found.solution if found else None, _FINAL_STEPS
        )
        weight, bias = self.scaling.fold(solution[0] / best.temperature)
        return Head(
            weight,
            bias,
            best.strength,
            found.trials if found else (),
            found.doubts if found else (),
        )


def _better(simpler: _Candidate, other: _Candidate) -> _Candidate:
    """``other`` only if it is better by more than one standard error (Breiman et al., 1984): few photos can't tell."""
    return other if _gain(simpler, other) > 1 else simpler


def _gain(simpler: _Candidate, other: _Candidate) -> float:
    """By how many standard errors the loss of ``other`` is less; 0 where that can't be told."""
    if (
        simpler.validated is None
        or other.validated is None
        or len(simpler.validated.losses) < _FEWEST_JUDGED
    ):
        return 0.0
    gains = simpler.validated.losses - other.validated.losses
    error = gains.std() / np.sqrt(len(gains))
    return float(gains.mean() / max(error, np.finfo(error.dtype).tiny))


@dataclass(frozen=True)
class _Scaling:
    """Centre, and divide each feature by its spread plus a share of the typical one.

    Dividing by the spread alone would blow up features that hardly ever move, the same divisor for all would let a few
    huge ones rule.
    """

    mean: Tensor
    scale: Tensor

    @classmethod
    def of(cls, values: Tensor) -> _Scaling:
        spread, mean = torch.std_mean(values, 0, correction=0)
        moving = spread[spread > 0]
        scale = spread + _SHRINKAGE * (moving.median() if len(moving) else 1.0)
        return cls(
            mean, scale * (spread / scale).square().mean().sqrt().clamp_min(1e-6)
        )  # mean variance 1 after all

    def apply(self, values: Tensor) -> Tensor:
        return (values - self.mean) / self.scale

    def fold(self, solution: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Weights and biases [classes, features + 1] on scaled features → (weight, bias) on raw ones."""
        weight = solution[:, :-1].double() / self.scale.double()
        bias = solution[:, -1].double() - weight @ self.mean.double()
        return weight.float().cpu().numpy(), bias.float().cpu().numpy()


class _Problem:
    """Penalised log loss of a linear classifier, or of several side by side: one matrix product serves them all.

    values   float32 [photos, features], scaled
    targets  int64 [photos]
    weights  float32 [photos], above 0
    """

    def __init__(self, values: Tensor, targets: Tensor, weights: Tensor, classes: int) -> None:
        self.values = values
        self.targets = targets
        self.weights = weights
        self.classes = classes

    def subset(self, photos: Tensor) -> _Problem:
        return _Problem(
            self.values[photos], self.targets[photos], self.weights[photos], self.classes
        )

    def solve(
        self, strength: float, start: Tensor | None, steps: int, used: Tensor | None = None
    ) -> Tensor:
        """Weights and biases [models, classes, features + 1] of the least loss, by L-BFGS from ``start`` (or zeros).

        used  bool [photos, models], the photos that each model is fitted to; None: one model, all photos
        """
        shares = self.weights[:, None] * (
            torch.ones_like(self.weights[:, None]) if used is None else used
        )
        penalties = 1 / (strength * shares.sum(0))
        shares = shares / shares.sum(0)
        shape = (shares.shape[1], self.classes, self.values.shape[-1] + 1)
        solution = torch.zeros(shape, device=self.values.device) if start is None else start.clone()
        solution.requires_grad_()
        optimizer = torch.optim.LBFGS(
            [solution],
            max_iter=steps,
            tolerance_grad=_GRADIENT,
            tolerance_change=_CHANGE,
            line_search_fn="strong_wolfe",
        )

        def loss() -> float:
            optimizer.zero_grad()
            penalty = (solution[..., :-1].square().sum((1, 2)) * penalties).sum() / 2
            penalty.backward()  # type: ignore[no-untyped-call]
            total = float(penalty.detach())
            for rows in self._chunks(shape[0]):
                part = (self._losses(solution, rows) * shares[rows]).sum()
                part.backward()  # type: ignore[no-untyped-call]
                total += float(part.detach())
            return total

        optimizer.step(loss)  # type: ignore[no-untyped-call]
        return solution.detach()

    @torch.no_grad()
    def left_out(self, solution: Tensor, model: Tensor) -> Tensor:
        """float32 [photos, classes]: the logits of each photo, by model number ``model`` (int64 [photos])."""
        parts = []
        for rows in self._chunks(solution.shape[0]):
            logits = self._logits(solution, rows)
            parts.append(logits[torch.arange(len(logits)), model[rows]])
        return torch.cat(parts)

    def _losses(self, solution: Tensor, rows: slice) -> Tensor:
        """float32 [photos, models]."""
        logits = self._logits(solution, rows)
        own = logits.gather(2, self.targets[rows, None, None].expand(*logits.shape[:2], 1))[..., 0]
        return logits.logsumexp(2) - own

    def _logits(self, solution: Tensor, rows: slice) -> Tensor:
        """float32 [photos, models, classes]."""
        values = self.values[rows]
        weights, biases = solution[..., :-1].flatten(0, 1), solution[..., -1].flatten()
        # This way round the gradient is a product with long rows: several times faster where classes are few.
        logits = (weights @ values.T).T + biases
        return logits.reshape(len(values), *solution.shape[:2])

    def _chunks(self, models: int) -> list[slice]:
        """Rows to take at a time, so that memory stays bounded whatever the number of photos and classes."""
        step = max(1, _CHUNK // (models * self.classes))
        return [slice(start, start + step) for start in range(0, len(self.targets), step)]


def _cross_validate(problem: _Problem, ranks: NDArray[np.int64], stop: Event) -> _Validated | None:
    """Try strengths from the smallest on while the loss gets better; None where no photo can be judged.

    ranks  see ``_ranks``; a photo's fold is its rank modulo the number of folds
    stop   set where nobody waits for the answer any more

    A class that a single fold holds is not judged: where it is held out, nothing is known of it. Strengths that would
    drown it are not tried then.
    """
    labels = problem.targets.cpu().numpy()
    different = np.ones(problem.classes)
    np.maximum.at(different, labels, ranks + 1.0)
    chosen = np.argsort(ranks / different[labels], kind="stable")[
        :_CV_PHOTOS
    ]  # the same share of each class
    whole, known = problem, labels
    problem, ranks, labels = problem.subset(torch.from_numpy(chosen)), ranks[chosen], labels[chosen]
    folds = _FOLDS if len(chosen) * problem.classes <= _CV_LOGITS else 2
    judged = np.isin(
        labels, labels[ranks % folds != 0]
    )  # ranks begin at 0: fold 0 holds a photo of every class
    if not judged.any():
        return None
    fold = torch.from_numpy(ranks % folds).to(problem.targets.device)
    used = fold[:, None] != torch.arange(folds, device=fold.device)
    trials: list[Trial] = []
    solution: Tensor | None = None
    found: _Validated | None = None
    for strength in STRENGTHS if judged.all() else STRENGTHS[STRENGTHS.index(DEFAULT_STRENGTH) :]:
        if stop.is_set():
            break
        solution = problem.solve(strength, solution, _CV_STEPS, used)
        logits = problem.left_out(solution, fold).cpu().numpy()
        trial, losses = _trial(
            strength, logits[judged], labels[judged], problem.weights.cpu().numpy()[judged]
        )
        trials.append(trial)
        if found is None or trial.loss <= found.best.loss:
            doubts = _doubts(logits[judged] / trial.temperature, labels[judged], chosen[judged])
            found = _Validated((), trial, solution.mean(0, keepdim=True), losses, doubts)
        elif len(trials) - 1 - trials.index(found.best) >= _PATIENCE:
            break
    if found is None:
        return None
    rest = np.setdiff1d(np.flatnonzero(np.isin(known, labels[judged])), chosen)
    doubts = found.doubts
    if len(rest):  # photos that no fold was fitted to
        logits = whole.left_out(found.solution, torch.zeros_like(whole.targets)).cpu().numpy()[rest]
        doubts += _doubts(logits / found.best.temperature, known[rest], rest)
        doubts = tuple(sorted(doubts, key=lambda doubt: -doubt.confidence))
    return replace(found, trials=tuple(trials), doubts=doubts)


def _trial(
    strength: float,
    logits: NDArray[np.float32],
    labels: NDArray[np.int64],
    weights: NDArray[np.float32],
) -> tuple[Trial, NDArray[np.float64]]:
    """The trial, and the weighted losses of its photos, whose mean is its loss."""
    temperature = fit_temperature(logits, labels, weights)
    losses = -log_softmax(logits.astype(np.float64) / temperature, axis=1)[
        np.arange(len(labels)), labels
    ]
    losses *= weights / weights.mean()
    right = logits.argmax(1) == labels
    return Trial(
        strength, temperature, float(losses.mean()), float(np.average(right, weights=weights))
    ), losses


def _doubts(
    logits: NDArray[Any], labels: NDArray[np.int64], photos: NDArray[np.int64]
) -> tuple[LabelIssue, ...]:
    """photos: their rows."""
    predicted, confidence = logits.argmax(1), softmax(logits, axis=1).max(1)
    wrong = np.flatnonzero(predicted != labels)
    surest = wrong[np.argsort(-confidence[wrong], kind="stable")]
    return tuple(
        LabelIssue(int(photos[row]), int(predicted[row]), float(confidence[row])) for row in surest
    )


def _ranks(labels: NDArray[np.int64], digests: Sequence[str] | None) -> NDArray[np.int64]:
    """Each photo's place, from 0, among the different photos of its class in the order of their digests.

    Digests are as good as random, and dealing by them keeps copies together, whatever the photos' names and order.
    """
    keys = (
        np.random.default_rng(0).permutation(len(labels))
        if digests is None
        else np.asarray(digests)
    )
    ranks = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        ranks[members] = np.unique(keys[members], return_inverse=True)[1]
    return ranks
