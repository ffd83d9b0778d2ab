"""The types and constants that the parity fixtures share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from edgetl.parity.results import CheckResult
from edgetl.parity.runtimes import Subject
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.runtime.images.spec import PreprocessSpec

LABELS = ("cat", "dog", "mouse, white", "鼠")
SPEC = PreprocessSpec("squash", (40, 48), "bicubic", (32, 32), (0.5, 0.45, 0.4), (0.25, 0.22, 0.3))


@dataclass(frozen=True)
class Exported:
    """A bundle, and the network that it was exported from."""

    folder: Path
    run: Path
    network: nn.Module
    card: ModelCard

    def subject(self, folder: Path | None = None) -> Subject:
        return Subject.open(folder or self.folder, self.network, self.card)


# A subject and options of ``check`` → its result over the photos.
Check = Callable[..., CheckResult]
