"""The torch.export file (.pt2) in torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgetl.parity.check_photos import Photo, Unreadable
from edgetl.parity.runtimes.base import Runtime, Subject
from edgetl.parity.stages import Refusal, Stages


class ExportedProgram(Runtime):
    """Predictions come from the file as it is, the stages before from a copy cut in memory."""

    name = "pt2"

    def __init__(self, subject: Subject) -> None:
        import torch

        self._outputs = subject.card.outputs
        program = torch.export.load(subject.file("pt2"))
        self._torch, self._threads = torch, subject.threads
        self._shipped, self._cut = program.module(), _cut_at_preprocessing(torch, program.module())

    def run(self, photos: Sequence[Photo | Unreadable]) -> Sequence[Stages | Refusal]:
        self._torch.set_num_threads(self._threads)
        with self._torch.inference_mode():
            pixels = [photo.pixels for photo in photos if isinstance(photo, Photo)]
            return [self._classify(image[np.newaxis]) for image in pixels]

    def _classify(self, pixels: Any) -> Stages:
        images = self._torch.from_numpy(pixels)
        values = (*self._cut(images)[:2], *self._shipped(images))
        named = zip(("resized", "normalized", *self._outputs), values, strict=True)
        return Stages(**{stage: value[0].numpy() for stage, value in named})


def _cut_at_preprocessing(torch: Any, module: Any) -> Any:
    """Make ``module``, a torch.fx.GraphModule, return (resized, normalized, …).

    The values in the graph have no names: the last uint8 tensor with 3 channels is the resized
    photo, the first sum after it the normalized one. Raises ValueError if there are none.
    """

    def is_photo(value: Any) -> bool:
        is_uint8 = isinstance(value, torch.Tensor) and value.dtype == torch.uint8
        return is_uint8 and value.shape[-1:] == (3,)

    nodes = list(module.graph.nodes)
    photos = [n for n in nodes if n.op != "placeholder" and is_photo(n.meta.get("val"))]
    after = nodes[nodes.index(photos[-1]) :] if photos else []
    sums = [node for node in after if node.target == torch.ops.aten.add.Tensor]
    if not sums:
        raise ValueError("its graph has no resized photos")
    output = nodes[-1]
    (outputs,) = output.args
    # As many as before, which is how many a caller is given.
    output.args = ((photos[-1], *[sums[0]] * (len(outputs) - 1)),)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module
