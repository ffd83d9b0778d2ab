"""torch's optimizers by name, and the arithmetic of mixed precision."""

from __future__ import annotations

from inspect import unwrap
from typing import Any, TypeVar, cast

import torch
from torch.optim import SGD, Adam, AdamW, Optimizer

from edgetl.errors import RuntimeUnavailableError
from edgetl.training.config.settings import TrainSettings

_O = TypeVar("_O", bound=Optimizer)
_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def make_optimizer(
    settings: TrainSettings, groups: list[dict[str, Any]], device: torch.device
) -> Optimizer:
    """SGD with momentum, Adam or AdamW; each group has its own learning rate and decay."""
    # Layer-wise rates make dozens of groups: one kernel for each of them, not a dozen.
    fused = device.type == "cuda"
    if settings.optimizer == "sgd":
        optimizer = _quick_to_start(SGD)(
            groups, lr=settings.lr, momentum=settings.momentum, fused=fused
        )
        if fused and settings.momentum:
            # If fp16's scaler skips the first step, the momentum would be uninitialised memory.
            for parameter in (parameter for group in groups for parameter in group["params"]):
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return optimizer
    kind = Adam if settings.optimizer == "adam" else AdamW
    return _quick_to_start(kind)(groups, lr=settings.lr, fused=fused)


def _quick_to_start(kind: type[_O]) -> type[_O]:
    """``kind`` without the decorators that import torch's compiler, which takes over a second.

    They keep the compiler out of these methods, which no compiled network calls.
    """
    names = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    plain = {name: unwrap(getattr(kind, name)) for name in names}
    step = torch.no_grad()(unwrap(kind.step))
    return cast(type[_O], type(kind.__name__, (kind,), {**plain, "step": step}))


def reduced_type(precision: str, device: torch.device) -> torch.dtype | None:
    """The dtype to compute in, or None for float32.

    Raises RuntimeUnavailableError for one that the device does not support.
    """
    if precision == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else None
    if precision == "fp16" and device.type != "cuda":
        raise RuntimeUnavailableError(
            "fp16 is for GPUs.",
            "Use --precision bf16 or float32 on a CPU; resume a run that began in fp16 on a GPU.",
        )
    return _TYPES.get(precision)
