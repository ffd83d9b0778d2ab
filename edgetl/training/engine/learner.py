"""The network that is trained, and everything that an optimizer step changes."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from edgetl.errors import TrainingError, first_line
from edgetl.training.config.run_context import RunContext
from edgetl.training.config.settings import TrainSettings
from edgetl.training.engine.training_setup import TrainingSetup
from edgetl.training.input.loader import Batch
from edgetl.training.input.mixing import Mixing
from edgetl.training.models.backbone import Backbone
from edgetl.training.models.network_split import NetworkSplit, UpperNetwork
from edgetl.training.models.pretrained_weights import load_state
from edgetl.training.models.trainable import Trainable
from edgetl.training.optim.losses import photo_losses
from edgetl.training.optim.optimizers import make_optimizer, reduced_type
from edgetl.training.optim.schedules import Schedule
from edgetl.training.optim.weight_average import WeightAverage
from edgetl.training.optim.weight_interpolation import WeightInterpolation
from edgetl.training.torch_env.distributed import Processes
from edgetl.training.torch_env.oom_retry import is_out_of_memory
from edgetl.training.torch_env.randomness import STEP, torch_seed

# Activations whose gradient needs their input: in place, autograd would copy that first. ReLU6 is a
# Hardtanh.
_COPIED_IN_PLACE = (nn.Hardtanh, nn.SiLU, nn.Hardswish, nn.Hardsigmoid, nn.Mish)


class Learner:
    """A backbone on its device, with its optimizer, schedule, weight average and loss.

    class_weights  [classes], or None where every photo weighs the same
    steps          optimizer steps in an epoch
    split          where batches hold activations: the part of the network that is called

    last_lr        the largest learning rate of the last step
    sums           float64 [3]: loss, right answers and photos of this process, since last zeroed
    """

    def __init__(
        self,
        backbone: Backbone,
        settings: TrainSettings,
        class_weights: Sequence[float] | None,
        steps: int,
        processes: Processes,
        split: NetworkSplit | None = None,
    ) -> None:
        self._settings, self._processes, self._device = settings, processes, processes.device
        self._network = backbone.module
        self._trainable = Trainable(
            backbone, settings.strategy, settings.blocks, norm_statistics=settings.norm_statistics
        )
        groups = self._trainable.parameter_groups(
            settings.lr, settings.weight_decay, settings.layer_decay
        )
        self._optimizer = make_optimizer(settings, groups, self._device)
        self._schedule = Schedule(self._optimizer, settings, steps)
        self._average = WeightAverage(self._network, settings.ema) if settings.ema else None
        for module in self._network.modules():
            if isinstance(module, _COPIED_IN_PLACE):
                module.inplace = False
        self._interpolation = (
            WeightInterpolation(self._network)
            if settings.warm_head and backbone.has_linear_head
            else None
        )
        self._reduced = reduced_type(settings.precision, self._device)
        self._scaler = torch.amp.GradScaler(
            self._device.type, enabled=self._reduced is torch.float16
        )
        classes = backbone.head_layer.weight.shape[0]
        self._mixing = Mixing(settings, int(classes))
        self._class_weights = (
            None if class_weights is None else torch.tensor(class_weights, device=self._device)
        )
        self._compiled = _Compiled(self._network) if settings.compile else None
        self._model = UpperNetwork(self._network, split) if split else self._wrapped()
        self.last_lr = self.lr
        self.sums = torch.zeros(3, dtype=torch.float64, device=self._device)

    def _wrapped(self) -> Any:
        """The network as it is called in training: compiled, and sharing gradients, if need be."""
        model: Any = self._compiled or self._network
        if self._processes.world_size == 1:
            return model
        # No buffers: they are frozen, or batch norm measures them over all processes.
        parameters = inspect.signature(DistributedDataParallel).parameters
        buffers = "forward_sync_buffers"  # the name since torch 2.13
        if buffers not in parameters:
            buffers = "broadcast_buffers"
        options: dict[str, Any] = {"gradient_as_bucket_view": True, buffers: False}
        if self._device.type == "cuda":
            options["device_ids"] = [self._device]
        return DistributedDataParallel(model, **options)

    @property
    def lr(self) -> float:
        """The largest learning rate of the next step."""
        return max(float(group["lr"]) for group in self._optimizer.param_groups)

    def set_lr(self, lr: float) -> None:
        """Use ``lr`` at the head in the next step, and in proportion below.

        For a constant schedule; others would overwrite it.
        """
        factor = lr / self.lr
        for group in self._optimizer.param_groups:
            group["lr"] *= factor

    def train_mode(self) -> None:
        """Put what is trained into training mode."""
        self._trainable.train()

    def evaluated_network(self) -> nn.Module:
        """The network to validate and keep, in eval mode: the average if there is one."""
        network = self._average.network if self._average else self._network
        # Some layers, not batch norm, measure each process's own photos.
        self._processes.broadcast(network.buffers())
        # Some layers cache what they computed from older weights until they are in training mode.
        return network.train().eval()

    def interpolated_network(self) -> nn.Module | None:
        """A network half-way between the one at the start and ``evaluated_network``.

        None where training started with a random head.
        """
        return self._interpolation.to(self.evaluated_network()) if self._interpolation else None

    def epoch_ended(self, val_loss: float) -> None:
        """After a validation."""
        self._schedule.epoch_ended(val_loss)

    def skip_ahead(self, share: float) -> None:
        """See ``Schedule.skip_ahead``."""
        self._schedule.skip_ahead(share)

    def step(
        self, epoch: int, step: int, batches: Iterator[Batch], count: int, photos: int
    ) -> None:
        """One optimizer step over this process's part of the next ``count`` batches.

        photos  of the whole step, in all processes. The gradient is that of the summed loss,
                divided by it, however the step is split into batches and processes. It is not
                divided by the photos' weights, which have a mean of 1 over an epoch: a step without
                a rare photo would count as much as one with it.
        """
        seed = torch_seed(self._settings.seed, STEP, epoch, step, self._processes.rank)
        # torch.manual_seed goes through all kinds of devices, which takes as long as a small step.
        torch.default_generator.manual_seed(seed)
        if self._device.type == "cuda":
            torch.cuda.manual_seed(seed)
        self.last_lr = self.lr
        for number in range(count):
            with self._gradient_exchange(last=number == count - 1), _explained():
                # DDP averages gradients over processes; we want their sum.
                loss = self._loss(next(batches)) * (self._processes.world_size / photos)
                self._scaler.scale(loss).backward()
        if self._settings.clip:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self._network.parameters(), self._settings.clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        self._schedule.step()
        if self._average is not None:
            self._average.update()

    def _gradient_exchange(self, last: bool) -> AbstractContextManager[Any]:
        """Processes exchange gradients once a step, with its last batch."""
        if isinstance(self._model, DistributedDataParallel) and not last:
            return self._model.no_sync()
        return nullcontext()

    def _loss(self, batch: Batch) -> Tensor:
        images, targets = self._mixing(batch.images, batch.labels, batch.shard)
        with torch.autocast(self._device.type, self._reduced, enabled=self._reduced is not None):
            logits = self._model(images)
        logits = logits.float()
        loss = photo_losses(
            logits, targets, self._class_weights, self._settings.label_smoothing
        ).sum()
        with torch.no_grad():
            right = (logits.argmax(1) == batch.labels[batch.shard.borrowed :]).sum()
            self.sums += torch.stack(
                [loss.detach(), right, torch.full_like(right, len(logits))]
            ).double()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Everything that steps change, as tensors and plain values."""
        return {
            "network": self._network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "scaler": self._scaler.state_dict(),
            "average": self._average.state_dict() if self._average else None,
            "interpolation": self._interpolation.state_dict() if self._interpolation else None,
            "compiled": self._compiled.size if self._compiled else 0,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned, for the same backbone and settings."""
        load_state(self._network, state["network"])
        # Fused kernels are for GPUs. torch would use them, and their state's device, as saved.
        groups = [
            {**group, "fused": self._device.type == "cuda"}
            for group in state["optimizer"]["param_groups"]
        ]
        self._optimizer.load_state_dict({**state["optimizer"], "param_groups": groups})
        self._schedule.load_state_dict(state["schedule"])
        self._scaler.load_state_dict(state["scaler"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        if self._interpolation is not None:
            self._interpolation.load_state_dict(state["interpolation"])
        if self._compiled is not None:
            self._compiled.size = state["compiled"]


def make_learner(context: RunContext, setup: TrainingSetup) -> Learner:
    """That of a run; for a new one, or to load a saved state into."""
    return Learner(
        setup.backbone,
        context.settings,
        setup.class_weights,
        setup.sampler.steps,
        context.processes,
        setup.split,
    )


class _Compiled(nn.Module):
    """A network compiled for one batch size; an epoch's smaller last batch runs uncompiled.

    size  of the largest batch so far

    By default, torch would compile it again for any size at the first smaller batch, and only use
    that slower code from then on.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = network
        self._fast = torch.compile(network, dynamic=False)
        # The compiler, which may have been imported just now, keeps this setting, too.
        torch.use_deterministic_algorithms(
            torch.are_deterministic_algorithms_enabled(),
            warn_only=torch.is_deterministic_algorithms_warn_only_enabled(),
        )
        self.size = 0

    def forward(self, images: Tensor) -> Any:
        self.size = max(self.size, len(images))
        return (self._fast if len(images) == self.size else self._network)(images)


@contextmanager
def _explained() -> Iterator[None]:
    """Explain the errors that another option avoids."""
    try:
        yield
    except ValueError as error:
        if not str(error).startswith("Expected more than 1 value per channel"):
            raise
        raise TrainingError(
            "Batch norm can't measure a single photo of this size.",
            "Use a larger --batch-size or --image-size.",
        ) from error
    except Exception as error:
        if is_out_of_memory(error):
            raise TrainingError(
                "The GPU's memory is too small for this batch.",
                "Halve --batch-size and double --accumulate: the steps stay the same.",
            ) from error
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        raise TrainingError(
            f"torch can't compile this network here: {first_line(error)}", "Leave out --compile."
        ) from error
