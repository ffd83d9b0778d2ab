"""Multinomial logistic regression with an L2 penalty, for several models at once, by L-BFGS."""

from __future__ import annotations

from dataclasses import dataclass, replace
from inspect import unwrap
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

CHUNK = 1 << 24  # logits held in memory at a time
STEP_TOLERANCE = 1e-6  # in nats: steps that lower the loss by less say nothing of other photos
_GRADIENT_TOLERANCE = 1e-6


class _LBFGS(torch.optim.LBFGS):
    """Without the decorators that import torch's compiler, which takes longer than some fits."""

    add_param_group = unwrap(Optimizer.add_param_group)
    zero_grad = unwrap(Optimizer.zero_grad)


@dataclass(frozen=True)
class LogisticRegression:
    """The photos that linear classifiers are fitted to: one model, or one for each fold.

    All models share one matrix product, which is much faster than one product each.

    values    float32 [photos, dimensions], of scaled features
    targets   int64 [photos]
    weights   float32 [photos], above 0
    features  their number, where ``values`` are in a basis of fewer dimensions
    """

    values: Tensor
    targets: Tensor
    weights: Tensor
    classes: int
    features: int

    def subset(self, rows: Tensor) -> LogisticRegression:
        """The same for some of the photos. rows: int64."""
        return replace(
            self,
            values=self.values[rows],
            targets=self.targets[rows],
            weights=self.weights[rows],
        )

    def solve(
        self,
        C: float,
        start: Tensor | None,
        steps: int,
        used: Tensor | None = None,
        factor: Tensor | None = None,
    ) -> Tensor:
        """Minimise the penalised log loss, in at most ``steps`` steps from ``start`` (or zeros).

        C       inverse strength of the penalty on the weights, as in scikit-learn
        used    bool [photos, models], what each model is fitted to; None: one model, all photos
        factor  float32 [dimensions, dimensions], see ``ClassNormals.factor``, with which far fewer
                steps are needed

        Returns weights and biases [models, classes, dimensions + 1], the biases last.
        """
        shares = self.weights[:, None] * (
            torch.ones_like(self.weights[:, None]) if used is None else used
        )
        penalties = 1 / (C * shares.sum(0))
        shares = shares / shares.sum(0)
        shape = (shares.shape[1], self.classes, self.values.shape[-1] + 1)
        sought = torch.zeros(shape, device=self.values.device)
        if start is not None:
            sought.copy_(start)
        inverse = None
        if factor is not None:  # its rows are what weights are sought as multiples of
            sought[..., :-1] = sought[..., :-1] @ factor
            one = torch.eye(shape[-1] - 1, device=factor.device)
            inverse = torch.linalg.solve_triangular(factor, one, upper=False)
        optimizer: Any = _LBFGS(
            [sought],
            max_iter=steps,
            tolerance_grad=_GRADIENT_TOLERANCE,
            tolerance_change=STEP_TOLERANCE,
            line_search_fn="strong_wolfe",
        )

        def solution() -> Tensor:
            found = sought.detach().clone()
            if inverse is not None:
                found[..., :-1] = found[..., :-1] @ inverse
            return found

        def loss() -> float:
            total, sought.grad = self._loss(solution(), shares, penalties)
            if inverse is not None:
                sought.grad[..., :-1] = sought.grad[..., :-1] @ inverse.mT
            return total

        optimizer.step(loss)
        return solution()

    def _loss(self, solution: Tensor, shares: Tensor, penalties: Tensor) -> tuple[float, Tensor]:
        """The sum of all models' penalised losses, and its gradient by the solution."""
        weights = solution[..., :-1]
        gradient = torch.zeros_like(solution)
        gradient[..., :-1] = weights * penalties[:, None, None]
        total = float((weights.square().sum((1, 2)) * penalties).sum()) / 2
        for rows in self._chunks(shares.shape[1]):
            # Without autograd, which copies more: four fifths of the time.
            logits, of_rows = self._logits(solution, rows), shares[rows].T[:, None]
            own = self.targets[rows].expand(len(logits), 1, -1)
            logs = logits.log_softmax(1)
            total -= float((logs.gather(1, own) * of_rows).sum(dtype=torch.float64))
            slopes = logs.exp_().mul_(of_rows).scatter_add_(1, own, -of_rows)
            gradient[..., :-1] += slopes @ self.values[rows]
            gradient[..., -1] += slopes.sum(2)
        return total, gradient

    @torch.no_grad()
    def logits(self, solution: Tensor, model: Tensor) -> Tensor:
        """Float32 [photos, classes]: each photo's logits by its model, int64 [photos]."""
        parts = []
        for rows in self._chunks(solution.shape[0]):
            logits = self._logits(solution, rows)
            parts.append(logits[model[rows], :, torch.arange(logits.shape[2])])
        return torch.cat(parts)

    def _logits(self, solution: Tensor, rows: slice) -> Tensor:
        """Float32 [models, classes, photos]."""
        weights, biases = solution[..., :-1].flatten(0, 1), solution[..., -1]
        return (weights @ self.values[rows].T).reshape(*biases.shape, -1) + biases[..., None]

    def _chunks(self, models: int) -> list[slice]:
        """Rows to take at a time, which bounds the memory for any number of photos and classes."""
        step = max(1, CHUNK // (models * self.classes))
        return [slice(start, start + step) for start in range(0, len(self.targets), step)]
