"""A network that also gives values from inside it: what some of its modules take or return."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn


class Tap(NamedTuple):
    """The place of a value in a network.

    path    attribute path of a module that is called once
    output  what it returns; else what it takes
    pooled  of maps float32 [N, c, h, w], the means over their places, [N, c]
    """

    path: str
    output: bool = False
    pooled: bool = False


class TappedNetwork(nn.Module):
    """``network``, with the values at ``taps`` after its logits; in its mode.

    Exporters record it as any network: a trace, or torch.export, runs the hooks and follows the
    values. The hooks are there during a call only, so that ``network`` itself stays as it is.
    """

    def __init__(self, network: nn.Module, taps: Mapping[str, Tap]) -> None:
        super().__init__()
        self.network, self.taps = network, dict(taps)
        self.train(network.training)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the values after the logits."""
        return tuple(self.taps)

    def forward(self, normalized: Tensor) -> tuple[Tensor, ...]:
        """Normalized float32 [N, 3, h, w] → logits, and the value of each tap."""
        found: dict[str, Tensor] = {}
        hooks = [self._hook(name, tap, found) for name, tap in self.taps.items()]
        try:
            logits = self.network(normalized)
        finally:
            for hook in hooks:
                hook.remove()
        return (logits, *(found[name] for name in self.taps))

    def _hook(self, name: str, tap: Tap, found: dict[str, Tensor]) -> Any:
        def record(_: nn.Module, inputs: tuple[Tensor, ...], result: Any = None) -> None:
            value = result if tap.output else inputs[0]
            if tap.pooled and value.ndim == 4:
                value = nn.functional.adaptive_avg_pool2d(value, 1).flatten(1)
            found[name] = value

        module = self.network.get_submodule(tap.path)
        if tap.output:
            return module.register_forward_hook(record)
        return module.register_forward_pre_hook(record)


def outputs_of(network: nn.Module) -> tuple[str, ...]:
    """Names of what ``network`` gives after its logits; none unless it is a TappedNetwork."""
    return network.outputs if isinstance(network, TappedNetwork) else ()
