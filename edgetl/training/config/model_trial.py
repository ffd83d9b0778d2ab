"""One network that a run with a budget has tried."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelTrial:
    """How well a head did on the frozen features of one network, and what that network takes.

    backbone, image_size  the network, and the side of its input in pixels
    precision   the one to export: "fp32", or "int8" where only that is within the budget
    total_ms    median milliseconds from a photo's file to its label
    memory      peak memory of a process that classifies one photo, bytes; None: unknown
    bytes       size of the model's file, for the classes of the run
    photos      how many training photos it was tried with; 0: too few to try
    accuracy    cross-validated, 0..1
    interval    of the accuracy, 95 %
    loss        cross-validated log loss, nats
    is_chosen   whether the run goes on with it
    """

    backbone: str
    image_size: int
    precision: str
    total_ms: float
    memory: int | None
    bytes: int
    photos: int = 0
    accuracy: float = 0.0
    interval: tuple[float, float] = (0.0, 1.0)
    loss: float = 0.0
    is_chosen: bool = False

    @property
    def name(self) -> str:
        """``efficientnet_lite0@256 int8``."""
        return f"{self.backbone}@{self.image_size} {self.precision}"
