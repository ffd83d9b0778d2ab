"""The ONNX file in OpenVINO, with photos that are resized outside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgetl.errors import MissingDependencyError
from edgetl.parity.check_photos import Photo, Unreadable
from edgetl.parity.runtimes.base import Runtime, Subject
from edgetl.parity.stages import Refusal, Stages
from edgetl.runtime.bundle.tensor_names import IMAGES
from edgetl.runtime.images.resize import resize_for_graph, resize_image


class OpenVino(Runtime):
    """OpenVINO computes float64 as float32, so that the resize in the graph would not be exact.

    On CPUs with bf16 it also uses that by default; full precision is set here. The model is
    compiled for each shape: with batch and size dynamic, OpenVINO 2026.4 gave wrong answers.
    """

    name = "openvino"
    follows_precision = True

    def __init__(self, subject: Subject) -> None:
        try:
            import openvino
            from openvino import properties
        except ImportError as error:
            raise MissingDependencyError("openvino", "The runtime openvino", "openvino") from error
        self._path, self._spec = subject.onnx(), subject.card.spec
        self._outputs = subject.onnx_outputs
        self._core = openvino.Core()
        self._settings = {
            properties.hint.inference_precision: openvino.Type.f32,
            properties.hint.execution_mode: properties.hint.ExecutionMode.ACCURACY,
            properties.inference_num_threads: subject.threads,
        }
        self._compiled: dict[tuple[int, ...], Any] = {}

    def run(self, photos: Sequence[Photo | Unreadable]) -> Sequence[Stages | Refusal]:
        return [self._classify(photo) for photo in photos if isinstance(photo, Photo)]

    def _classify(self, photo: Photo) -> Stages:
        images = resize_for_graph(photo.image, self._spec)[np.newaxis]
        outputs = self._model(images.shape)({IMAGES: images})
        answers = {name: np.array(outputs[name][0]) for name in self._outputs}
        return Stages(resized=resize_image(photo.image, self._spec), **answers)

    def _model(self, shape: tuple[int, ...]) -> Any:
        if shape not in self._compiled:
            model = self._core.read_model(str(self._path))
            model.reshape({IMAGES: list(shape)})
            self._compiled[shape] = self._core.compile_model(model, "CPU", self._settings)
        return self._compiled[shape]
