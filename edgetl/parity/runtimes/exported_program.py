"""The torch.export file (.pt2) in torch: as it is for the answers, cut in memory for the stages before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgetl.parity.check_photos import Photo, Unreadable
from edgetl.parity.runtimes.base import Runtime, Subject
from edgetl.parity.stages import Refusal, Stages


class ExportedProgram(Runtime):
    """The recorded graph has no named values; the resize is where it last holds photos of whole numbers."""

    name = "pt2"

    def __init__(self, subject: Subject) -> None:
        import torch

        program = torch.export.load(subject.file("pt2"))
        self._torch, self._threads = torch, subject.threads
        self._shipped, self._cut = program.module(), _cut_at_preprocessing(torch, program.module())

    def run(self, photos: Sequence[Photo | Unreadable]) -> Sequence[Stages | Refusal]:
        self._torch.set_num_threads(self._threads)
        with self._torch.inference_mode():
            return [
                self._classify(photo.pixels[np.newaxis])
                for photo in photos
                if isinstance(photo, Photo)
            ]

    def _classify(self, pixels: Any) -> Stages:
        images = self._torch.from_numpy(pixels)
        values = (*self._cut(images), *self._shipped(images))
        resized, normalized, logits, probabilities = (value[0].numpy() for value in values)
        return Stages(
            resized=resized, normalized=normalized, logits=logits, probabilities=probabilities
        )


def _cut_at_preprocessing(torch: Any, module: Any) -> Any:
    """``module`` (torch.fx.GraphModule), changed to give (resized, normalized) in place of its two outputs.

    Raises ValueError if the graph holds no such values.
    """
    nodes = list(module.graph.nodes)
    values = {
        node: node.meta["val"] for node in nodes if isinstance(node.meta.get("val"), torch.Tensor)
    }
    photos = [
        n
        for n, v in values.items()
        if n.op != "placeholder" and v.dtype == torch.uint8 and v.shape[-1:] == (3,)
    ]
    after = nodes[nodes.index(photos[-1]) :] if photos else []
    sums = [node for node in after if node.target == torch.ops.aten.add.Tensor]
    if not sums:
        raise ValueError("its graph holds no resized photos")
    output = nodes[-1]
    output.args = ((photos[-1], sums[0]),)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module
