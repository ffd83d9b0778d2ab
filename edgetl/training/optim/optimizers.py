"""torch's optimizers by name, and the arithmetic of mixed precision."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim import SGD, Adam, AdamW, Optimizer

from edgetl.errors import RuntimeUnavailableError
from edgetl.training.config.settings import TrainSettings

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def make_optimizer(
    settings: TrainSettings, groups: list[dict[str, Any]], device: torch.device
) -> Optimizer:
    """SGD with momentum, Adam or AdamW over groups that hold their own rate and weight decay."""
    fused = (
        device.type == "cuda"
    )  # rates that fall by layers make dozens of groups: one kernel for each, not a dozen
    if settings.optimizer == "sgd":
        optimizer = SGD(groups, lr=settings.lr, momentum=settings.momentum, fused=fused)
        if fused and settings.momentum:
            # A first step that fp16's scaler passes over would leave memory that nobody wrote where momentum is kept.
            for parameter in (parameter for group in groups for parameter in group["params"]):
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return optimizer
    return (Adam if settings.optimizer == "adam" else AdamW)(groups, lr=settings.lr, fused=fused)


def reduced_type(precision: str, device: torch.device) -> torch.dtype | None:
    """The type to compute in, or None for float32. Raises RuntimeUnavailableError for one that the device lacks."""
    if precision == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else None
    if precision == "fp16" and device.type != "cuda":
        raise RuntimeUnavailableError(
            "fp16 is for GPUs.",
            "Use --precision bf16 or float32 on a CPU; go on with a run that began in fp16 on a GPU.",
        )
    return _TYPES.get(precision)
