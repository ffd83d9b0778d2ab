"""Batch norm that measures the photos of all processes, on CPUs: torch has that for GPUs only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from edgetl.training.config.settings import TrainSettings
from edgetl.training.torch_env.distributed import Processes


def is_needed(settings: TrainSettings, processes: Processes) -> bool:
    """Whether batch norm measures photos that lie in several processes, on CPUs."""
    return settings.norm_statistics and processes.world_size > 1 and processes.device.type == "cpu"


class SharedBatchNorm(TorchFunctionMode):
    """Within ``with``, ``F.batch_norm`` in training is that of the whole batch, whose parts the processes hold.

    Every process must run the same layers. As modes are, it is for this thread alone; autograd needs it no more.
    """

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        arguments: Sequence[Any] = (),
        options: Mapping[str, Any] | None = None,
    ) -> Any:
        options = options or {}
        if function is F.batch_norm:
            return _batch_norm(*arguments, **options)
        return function(*arguments, **options)


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """As ``F.batch_norm``: input [n, c, …], everything else [c]."""
    if not training:
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    values = input.float()
    others = [axis for axis in range(values.ndim) if axis != 1]
    shape = [1, -1] + [1] * (values.ndim - 2)
    count = _total(values.new_tensor(values.numel() / values.shape[1]))
    mean = _total(values.sum(others)) / count
    centred = values - mean.view(shape)
    variance = _total(centred.square().sum(others)) / count
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean), momentum)
            running_var.lerp_((variance * count / (count - 1)).to(running_var), momentum)
    scale = torch.rsqrt(variance + eps) * (1.0 if weight is None else weight)
    normalized = centred * scale.view(shape)
    return (normalized if bias is None else normalized + bias.view(shape)).to(input.dtype)


class _Total(torch.autograd.Function):
    """The sum over all processes, each of whose losses depends on every part of it."""

    @staticmethod
    def forward(context: Any, part: Tensor) -> Tensor:
        total = part.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def _total(part: Tensor) -> Tensor:
    total: Tensor = _Total.apply(part)  # type: ignore[no-untyped-call]
    return total
