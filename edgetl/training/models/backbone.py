"""What a backbone is: a network to train, its preprocessing, and where its parts are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from torch import nn

from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.training.models.blocks import Block, run_once
from edgetl.training.torch_env.vision_libraries import TimmLinear

TIMM_PREFIX = "timm/"
"""Of the names of timm's models."""

Level: TypeAlias = tuple[str, int]
"""The attribute path of a layer whose feature maps a multi-level head uses, and its channels."""


class FileHead(NamedTuple):
    """The classifier in a file of weights: how many classes it is for, and who wrote the file."""

    classes: int
    by_edgetl: bool


@dataclass(frozen=True)
class Backbone:
    """A classifier to train.

    module  normalized float32 [N, 3, h, w] → logits float32 [N, classes]
    spec    the validation preprocessing published with its weights
    heads   attribute paths of the classifier layers (two for distilled transformers, else one)
    blocks  everything else in forward order; see ``edgetl.training.models.blocks``
    levels  earlier layers that the head uses too; see ``edgetl.training.models.multi_level``
    file_head  the classifier in its file of weights; None without one, or if edgetl wrote it for
               the same labels
    """

    name: str
    module: nn.Module
    spec: PreprocessSpec
    heads: tuple[str, ...]
    blocks: tuple[Block, ...]
    levels: tuple[Level, ...] = ()
    file_head: FileHead | None = None

    @property
    def head(self) -> str:
        """Attribute path of the (first) classifier layer."""
        return self.heads[0]

    @property
    def head_layer(self) -> Any:
        """The (first) classifier layer."""
        return self.module.get_submodule(self.head)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the network's input."""
        return self.spec.input_size

    @property
    def has_linear_head(self) -> bool:
        """Whether the logits are the output of one ``nn.Linear`` with a bias: a convex problem."""
        layer = self.head_layer
        return (
            len(self.heads) == 1
            and type(layer) in (nn.Linear, TimmLinear)
            and layer.bias is not None
        )

    @property
    def has_convolution_head(self) -> bool:
        """Whether the classifier layer looks at each place by itself, as SqueezeNet's does."""
        layer = self.head_layer
        return len(self.heads) == 1 and isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1)

    def refusal(self, size: tuple[int, int]) -> Exception | None:
        """The error that the network raises for photos of ``size``; None if it accepts them."""
        try:
            run_once(self.module, size)
        except Exception as error:  # of another type in each library
            return error
        return None
