"""The ONNX file in onnxruntime: on the CPU, on CUDA, without optimization, and in batches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import RuntimeUnavailableError
from edgetl.onnx_graph.onnx_file import cut_at_preprocessing
from edgetl.parity.check_photos import Photo, Unreadable
from edgetl.parity.runtimes.base import Runtime, Subject
from edgetl.parity.stages import Refusal, Stages
from edgetl.runtime.bundle.tensor_names import IMAGES, NORMALIZED, RESIZED
from edgetl.runtime.images.resize import resize_for_graph
from edgetl.runtime.inference.session import open_session


class OnnxRuntimeCpu(Runtime):
    """Predictions come from the unchanged file, the stages before from its preprocessing alone,
    cut off in memory."""

    name = "onnxruntime-cpu"
    follows_precision = True
    exact_integers = True

    provider: ClassVar[str] = "cpu"
    optimize: ClassVar[bool] = True
    tf32: ClassVar[bool] = False

    def __init__(self, subject: Subject) -> None:
        path, self._outputs = subject.onnx(), subject.onnx_outputs
        models = (path.read_bytes(), cut_at_preprocessing(path))
        self._shipped, self._cut = (
            open_session(
                model,
                providers=self.provider,
                threads=subject.threads,
                optimize=self.optimize,
                tf32=self.tf32,
                name=path,
            )
            for model in models
        )

    def run(self, photos: Sequence[Photo | Unreadable]) -> Sequence[Stages | Refusal]:
        pixels = [photo.pixels for photo in photos if isinstance(photo, Photo)]
        return [self._stages(image[np.newaxis])[0] for image in pixels]

    def _stages(self, images: NDArray[np.uint8]) -> list[Stages]:
        """uint8 [N, H, W, 3] → the stages of each of the N."""
        feed = {IMAGES: images}
        resized, normalized = self._cut.run([RESIZED, NORMALIZED], feed)
        outputs = self._shipped.run(self._outputs, feed)
        return [
            Stages(resized=r, normalized=n, **dict(zip(self._outputs, values, strict=True)))
            for r, n, *values in zip(resized, normalized, *outputs, strict=True)
        ]


class OnnxRuntimeUnoptimized(OnnxRuntimeCpu):
    """The graph as written, as other engines see it: onnxruntime fuses and folds no node."""

    name = "onnxruntime-unoptimized"
    optimize = False
    exact_integers = False  # every operator by itself, in float


class OnnxRuntimeCuda(OnnxRuntimeCpu):
    """With TF32 off, as in ``edgetl.Predictor``."""

    name = "onnxruntime-cuda"
    provider = "cuda"
    exact_integers = False

    def __init__(self, subject: Subject) -> None:
        if subject.precision != "fp32" and self.tf32:
            raise RuntimeUnavailableError("TF32 only matters for float32 models.")
        super().__init__(subject)


class OnnxRuntimeCudaTf32(OnnxRuntimeCuda):
    """For information: what other programs get, if they leave the provider's default on."""

    name = "onnxruntime-cuda-tf32"
    tf32 = True
    judged = False


class OnnxRuntimeBatch(OnnxRuntimeCpu):
    """Detects outputs that depend on batch composition.

    Photos of the same size are run together. Those with a size of their own are resized first, and
    then run together; a single one is run beside its own negative.
    """

    name = "batch"

    SIZE = 8

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self._spec = subject.card.spec

    def run(self, photos: Sequence[Photo | Unreadable]) -> Sequence[Stages | Refusal]:
        images = [photo for photo in photos if isinstance(photo, Photo)]
        raw = _by_shape({i: photo.pixels for i, photo in enumerate(images)})
        alone = [i for indices in raw.values() for i in indices if len(indices) == 1]
        sized = {i: resize_for_graph(images[i].image, self._spec) for i in alone}
        results: dict[int, Stages] = {}
        for indices in raw.values():
            if len(indices) > 1:
                self._run_group(indices, {i: images[i].pixels for i in indices}, results)
        for indices in _by_shape(sized).values():
            self._run_group(indices, sized, results)
        return [results[i] for i in range(len(images))]

    def _run_group(
        self, indices: list[int], pixels: dict[int, NDArray[np.uint8]], results: dict[int, Stages]
    ) -> None:
        for start in range(0, len(indices), self.SIZE):
            group = indices[start : start + self.SIZE]
            images = np.stack([pixels[i] for i in group])
            stages = self._stages(images if len(group) > 1 else np.concatenate([images, ~images]))
            results.update(zip(group, stages, strict=len(group) > 1))


def _by_shape(pixels: dict[int, NDArray[np.uint8]]) -> dict[tuple[int, ...], list[int]]:
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, values in pixels.items():
        groups[values.shape].append(index)
    return groups
