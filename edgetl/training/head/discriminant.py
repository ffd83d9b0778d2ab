"""Linear discriminant analysis with a shrunk covariance (Friedman, 1989), from sums over photos.

Every class is a normal distribution, all with the same covariance. It is estimated, and moved
towards that of features which vary equally and independently: the more, the more it is shrunk.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from edgetl.training.head.logistic_regression import LogisticRegression

LEAST_VARIANCE = 1e-6
"""Of a scaled feature within classes, whose mean variance in all is 1."""
_CHUNK = 2048  # photos whose products are added up in single precision, before they are in double
_BLOCKS = 6  # of rows of a product
_RIDGE = 3.0  # of the factor, of which features' variances have a mean of 1: with it, least steps
_UNSEEN = 0.5  # photos that a class without any counts as, so that its probability is not 0


@dataclass(frozen=True)
class ClassMoments:
    """Weighted sums over photos, of which a discriminant is made. Those of parts add up.

    counts    float64 [classes], of the photos' weights
    sums      float64 [classes, dimensions], of their scaled features
    squares   float64 [dimensions, dimensions], of the products of two of these
    features  see ``LogisticRegression``
    """

    counts: Tensor
    sums: Tensor
    squares: Tensor
    features: int

    @classmethod
    def measure(cls, problem: LogisticRegression) -> ClassMoments:
        """The sums over all photos of ``problem``."""
        values, classes, width = problem.values, problem.classes, problem.values.shape[1]
        exact = partial(torch.zeros, dtype=torch.float64, device=values.device)
        found = cls(exact(classes), exact(classes, width), exact(width, width), problem.features)
        size = -(-width // _BLOCKS)
        for start in range(0, len(values), _CHUNK):
            rows = slice(start, start + _CHUNK)
            some, weights = values[rows], problem.weights[rows]
            of_class = one_hot(problem.targets[rows], classes).T * weights.double()
            found.counts.add_(of_class.sum(1))
            found.sums.addmm_(of_class, some.double())
            some = some * weights.sqrt()[:, None]
            # Of a symmetric product, a good half is enough: rows of blocks from the diagonal on.
            for first in range(0, width, size):
                block = slice(first, first + size)
                product = some[:, block].T @ some[:, first:]
                found.squares[block, first:].add_(product)
                found.squares[first + size :, block].add_(product[:, size:].T)
        return found

    def __add__(self, other: ClassMoments) -> ClassMoments:
        counts, sums = self.counts + other.counts, self.sums + other.sums
        return ClassMoments(counts, sums, self.squares + other.squares, self.features)

    def __sub__(self, other: ClassMoments) -> ClassMoments:
        counts, sums = self.counts - other.counts, self.sums - other.sums
        return ClassMoments(counts, sums, self.squares - other.squares, self.features)

    def variance(self) -> float:
        """The mean variance of a feature within classes."""
        counts = torch.where(self.counts > 0, self.counts, _UNSEEN)
        between = (self.sums.square().sum(1) / counts).sum()
        return float((self.squares.trace() - between) / (self.counts.sum() * self.features))

    def normals(self) -> ClassNormals:
        """The classes' normal distributions. The sums are not to be used any more."""
        counts = torch.where(self.counts > 0, self.counts, _UNSEEN)
        means = self.sums / counts[:, None]
        covariance = self.squares.addmm_((means * counts[:, None]).T, means, alpha=-1)
        covariance /= self.counts.sum()
        return ClassNormals((counts / counts.sum()).log(), means, covariance, self.features)


@dataclass(frozen=True)
class ClassNormals:
    """A normal distribution for each class, all of the same covariance.

    priors      float64 [classes], logarithms of the probabilities: how frequent classes are
    means       float64 [classes, dimensions]
    covariance  float64 [dimensions, dimensions], S, not shrunk
    features    see ``LogisticRegression``
    """

    priors: Tensor
    means: Tensor
    covariance: Tensor
    features: int

    def factor(self) -> Tensor:
        """Float32 [dimensions, dimensions], the Cholesky factor of the covariance plus a ridge.

        That is about how a logistic regression's loss curves, but for a factor: in the basis of the
        rows of its inverse, all directions are alike.
        """
        covariance = self.covariance.float()
        covariance.diagonal().add_(_RIDGE)
        factor: Tensor = torch.linalg.cholesky(covariance)
        return factor

    def discriminant(self, shrinkage: float, precision: torch.dtype = torch.float64) -> Tensor:
        """Float64 [classes, dimensions + 1]: weights and, last, biases of linear logits.

        shrinkage  above 0 and below 1, the part g of (1 - g) S + g tr(S) / features I
        precision  that is tried first: float32 takes half the time
        """
        variance = (self.covariance.trace() / self.features).clamp_min(LEAST_VARIANCE)
        diagonal = self.covariance.diagonal() + variance * shrinkage / (1 - shrinkage)

        def shrunk(precision: torch.dtype) -> Tensor:
            covariance = self.covariance.to(precision, copy=True)
            covariance.diagonal().copy_(diagonal)
            return covariance

        factor, failed = torch.linalg.cholesky_ex(shrunk(precision))
        if failed:  # rounded too much for the directions in which features vary least
            factor = torch.linalg.cholesky(shrunk(torch.float64))
        solved = torch.cholesky_solve(self.means.T.to(factor), factor).to(self.means)
        weights = solved.T / (1 - shrinkage)
        biases = self.priors - (weights * self.means).sum(1) / 2
        solution = torch.cat([weights, biases[:, None]], dim=1)
        return solution - solution.mean(0)  # what all classes have in common decides nothing
