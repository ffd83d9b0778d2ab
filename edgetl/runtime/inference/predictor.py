"""The predictor that other programs embed: an encoded photo in, a label and probabilities out."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property, partial
from itertools import chain, islice
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetl.errors import (
    BundleError,
    ImageError,
    NoSuchModelError,
    PredictionError,
    without_traceback,
)
from edgetl.runtime.bundle.bundle_folder import Bundle, os_errors_as_bundle_error, read_card
from edgetl.runtime.bundle.tensor_names import (
    ANSWERS,
    EMBEDDING,
    EVIDENCE,
    IMAGES,
    LOGITS,
    OOD_SCORE,
    PROBABILITIES,
    RESIZED,
)
from edgetl.runtime.images.decode import MAX_PIXELS, Source, describe, read_image
from edgetl.runtime.images.resize import refuse_extreme_shape, resize_for_graph, resize_image
from edgetl.runtime.inference.prediction import Prediction, Result
from edgetl.runtime.inference.session import CPU, Providers
from edgetl.runtime.inference.session_pool import ReplacedError, SessionPool
from edgetl.system.machine import cores
from edgetl.system.ordered_map import ordered_map
from edgetl.system.paths import is_there
from edgetl.system.shell import shell_word

if TYPE_CHECKING:
    import onnxruntime
    from numpy.typing import NDArray
    from PIL import Image

    from edgetl.runtime.bundle.model_card import ModelCard
    from edgetl.runtime.inference.self_test import SelfTest

_INPUTS = [{name: "tensor(uint8)"} for name in (IMAGES, RESIZED)]
# Times the pixels of the network's input: a resize to so many is allowed whatever max_pixels is.
_MIN_RESIZE_LIMIT = 16
GPU_BATCH = 32
"""Photos per run on a device that one photo leaves idle."""


class Predictor:
    """Classifies photos with an exported model through onnxruntime.

    model       a bundle folder, or a lone model.onnx
    providers   execution providers: "auto" (CUDA where it works, else the CPU), a name ("cpu",
                "cuda"), or names in order of preference; a provider that was asked for by name is
                used, or an error is raised
    threads     threads inside one run of the model; None: one per core
    precision   which of a bundle's models ("fp32", "fp16", "int8"); None: its default
    max_pixels  the largest photo that is decoded, height × width; its resize may take as many, or
                16 times the network's input if that is more, but at most 100 million

    One object may be shared by threads. It can be pickled: the model is then loaded again where it
    is unpickled. It also works in a forked process, which must end with ``os._exit``, as those of
    multiprocessing do: onnxruntime hangs in ``sys.exit`` there.
    Raises BundleError for a model that is damaged or was not exported by edgetl,
    RuntimeUnavailableError, MissingDependencyError.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        providers: Providers = "auto",
        threads: int | None = None,
        precision: str | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        if threads is not None:
            _require_positive("threads", threads)
        _require_positive("max_pixels", max_pixels)
        if not os.fspath(model):  # e.g. from an unset variable; it would mean the current folder
            raise ValueError("model is empty; name a bundle folder or a model.onnx")
        self.path = Path(model)
        self.providers = providers
        self.threads = threads
        self.precision = precision
        self.max_pixels = max_pixels
        with os_errors_as_bundle_error(self.path):
            # Further sessions are opened later, when a daemon may have changed its folder.
            self.path = self.path.absolute()
        try:
            session = self._open()
        except ReplacedError:  # by an export in this very moment: open the new one
            session = self._open()
        self.card = self._checked_card(session)
        self._input = session.get_inputs()[0].name

    def _open(self) -> onnxruntime.InferenceSession:
        with os_errors_as_bundle_error(self.path):
            if self.path.suffix == ".safetensors":
                hint = "Export it first: edgetl export RUN -o DEST"
                reason = "it is a training checkpoint, not an exported model"
                raise NoSuchModelError(self.path, reason, hint)
            is_bundle = is_there(self.path) and self.path.is_dir()
            self.bundle = Bundle.open(self.path) if is_bundle else None
        if self.bundle is None and self.precision is not None:
            hint = "Leave the precision out, or name the bundle."
            raise NoSuchModelError(self.path, "a lone model has one precision only", hint)
        self._sessions = SessionPool(self.path, self.bundle, self.precision, self.providers)
        return self._sessions.get(self.threads)

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments that it was made with."""
        names = ("providers", "threads", "precision", "max_pixels")
        return {name: getattr(self, name) for name in names}

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of the outputs."""
        return self.card.labels

    @cached_property
    def model_id(self) -> str:
        """Identifies the model file: the first sixteen hex digits of its SHA-256."""
        return self._sessions.sha256()[:16]

    @property
    def provider(self) -> str:
        """Name of the execution provider that runs the model."""
        return str(self._sessions.get(self.threads).get_providers()[0])

    def __call__(self, source: Source) -> Prediction:
        """Classify one photo.

        source  a path, bytes, a binary file, a PIL image, or a uint8 array [H, W], [H, W, 3] or
                [H, W, 4] of RGB or RGBA; from OpenCV, which gives BGR: ``frame[..., ::-1]``

        Raises ImageError if it is not one whole photo, PredictionError if the model fails on it.
        """
        return self._predict_one(source, self.preprocess(source)[np.newaxis])

    def explain(self, source: Source) -> Prediction:
        """Classify one photo, and say which places of it speak for each class.

        Where the model was exported with evidence maps; opening it for them takes as long as
        opening it at first, and memory. See ``Prediction.evidence``.

        Raises BundleError for a model without them, and what calling the predictor raises.
        """
        images = self.preprocess(source)[np.newaxis]
        result = self._predict_one(source, images)
        session = self._sessions.get(self.threads, evidence=True)
        if EVIDENCE not in {value.name for value in session.get_outputs()}:
            run = "RUN" if self.bundle is None else shell_word(self.bundle.run or "RUN")
            hint = f"Export it with them: edgetl export {run} -o DEST --maps"
            raise BundleError(self.path, "it has no evidence maps", hint)
        (evidence,) = self._run(session, [EVIDENCE], images)
        is_map = evidence.ndim == 4 and evidence.shape[:2] == (1, len(self.labels))
        if not (is_map and evidence.size and np.isfinite(evidence).all()):
            raise BundleError(self.path, "its evidence is not one map of numbers for each label")
        return replace(result, evidence=evidence[0])

    def batch(
        self, sources: Iterable[Source], *, workers: int | None = None
    ) -> Iterator[Prediction | ImageError | PredictionError]:
        """Classify many photos on all cores; yields one result for each source, in order.

        For a photo that can't be read the result is an ImageError, and for one that the model fails
        on a PredictionError: what calling the predictor with that photo raises.

        Sources are those that a call takes: arrays are RGB, from OpenCV ``frame[..., ::-1]``.
        They are taken as they are needed, so an endless iterable costs no memory. On a CPU,
        several workers use a second session with one thread per run, unless the predictor was made
        with ``threads``.

        workers  photos worked on at the same time; None: one per core

        Raises TypeError for a single photo, BundleError if the model was replaced or damaged since.
        """
        # The rows of an array and the lines of a file would each be taken for a photo.
        one = isinstance(sources, (str, bytes, bytearray, memoryview, os.PathLike)) or hasattr(
            sources, "read"
        )
        if one or (isinstance(sources, np.ndarray) and sources.ndim < 4):
            raise TypeError(
                "batch takes many photos: pass a list, or call the predictor with a single photo."
            )
        workers = cores() if workers is None else workers
        _require_positive("workers", workers)
        batch_size = 1 if self.provider == CPU else GPU_BATCH
        threads = self.threads
        if threads is None and batch_size == 1 and workers > 1:
            threads = 1  # one photo per core beats one photo on all cores: no core waits for others
        return self._batch(iter(sources), batch_size, workers, threads)

    def _batch(
        self, sources: Iterator[Source], batch_size: int, workers: int, threads: int | None
    ) -> Iterator[Prediction | ImageError | PredictionError]:
        chunks = iter(lambda: list(islice(sources, batch_size)), [])
        start = list(islice(chunks, 2))
        if len(start) == 1:  # nothing to do in parallel: use the session that is already open
            yield from self._classify(start[0], self.threads)
            return
        self._sessions.get(threads)  # a damaged model is an error here, not one for each photo
        from concurrent.futures import ThreadPoolExecutor

        work = partial(self._classify, threads=threads)
        with (
            ThreadPoolExecutor(workers, thread_name_prefix="edgetl") as pool,
            # Closed, since the caller may stop half way.
            closing(ordered_map(pool, work, chain(start, chunks), 2 * workers + 1)) as results,
        ):
            for chunk in results:
                yield from chunk

    def resize(self, image: Image.Image) -> NDArray[np.uint8]:
        """An RGB image → uint8 [h, w, 3] for ``run_model``. Raises ImageError as ``resize_image``.

        For a model that had to be loaded whole, the crop is left to its graph: the graph would
        enlarge an image that is already cropped.
        """
        return (resize_image if self._input == RESIZED else resize_for_graph)(image, self.card.spec)

    def run_model(
        self, images: NDArray[np.uint8], *, threads: int | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Run the model on images that are already resized.

        images   uint8 [N, h, w, 3], as ``resize`` makes them
        threads  threads inside this run; None: the predictor's own number

        Returns logits and probabilities, float32 [N, classes] each. Raises BundleError if it fails.
        """
        outputs = self.run_outputs(images, threads=threads)
        return outputs[LOGITS], outputs[PROBABILITIES]

    def run_outputs(
        self, images: NDArray[np.uint8], *, threads: int | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """As ``run_model``, with every output that the predictor uses, by name.

        These are ``logits`` and ``probabilities`` float32 [N, classes] and, where the model has a
        score, ``ood_score`` float32 [N] and ``embedding`` float32 [N, dimensions].
        """
        session = self._sessions.get(self.threads if threads is None else threads)
        values = self._run(session, self.card.outputs, images)
        outputs = dict(zip(self.card.outputs, values, strict=True))
        answers, one_each = (len(images), len(self.labels)), (len(images),)
        shapes = {LOGITS: answers, PROBABILITIES: answers, OOD_SCORE: one_each}
        for name, rows in outputs.items():
            expected = (*one_each, *rows.shape[-1:]) if name == EMBEDDING else shapes[name]
            if rows.shape != expected:
                reason = (
                    f"the model's {name} has shape {list(rows.shape)}; expected {list(expected)}"
                )
                raise BundleError(self.path, reason)
        return outputs

    def _run(
        self,
        session: onnxruntime.InferenceSession,
        outputs: Sequence[str],
        images: NDArray[np.uint8],
    ) -> list[NDArray[np.float32]]:
        try:
            found: list[NDArray[np.float32]] = session.run(outputs, {self._input: images})
        except Exception as error:  # onnxruntime's exceptions have no other common base class
            raise BundleError(self.path, f"the model failed: {error}") from error
        return found

    def selftest(self, *, tolerance: float | None = None) -> SelfTest:
        """Run the bundle's golden photos and compare with the trained model's answers.

        See ``edgetl.runtime.inference.self_test.selftest``.
        """
        from edgetl.runtime.inference.self_test import selftest

        return selftest(self, tolerance=tolerance)

    def _classify(self, sources: Sequence[Source], threads: int | None) -> list[Result]:
        """Classify ``sources``, with one run of the model for all images of the same shape."""
        results: dict[int, Result] = {}
        by_shape: dict[tuple[int, ...], dict[int, NDArray[np.uint8]]] = {}
        for i, source in enumerate(sources):
            try:
                pixels = self.preprocess(source)
                by_shape.setdefault(pixels.shape, {})[i] = pixels
            except ImageError as error:
                results[i] = without_traceback(error)
        for group in by_shape.values():
            names, images = [describe(sources[i]) for i in group], np.stack(list(group.values()))
            results.update(zip(group, self.predict_stack(names, images, threads), strict=True))
        return [results[i] for i in range(len(sources))]

    def preprocess(self, source: Source) -> NDArray[np.uint8]:
        """The graph's input for a photo, uint8 [h, w, 3]. Raises ImageError naming ``source``."""
        image = read_image(source, max_pixels=self.max_pixels)
        try:
            if self.max_pixels < MAX_PIXELS:
                size = self.card.spec.size
                input_pixels = math.prod(size) if isinstance(size, tuple) else size**2
                limit = max(self.max_pixels, _MIN_RESIZE_LIMIT * input_pixels)
                refuse_extreme_shape(image, self.card.spec, limit)
            return self.resize(image)
        except ImageError as error:
            raise ImageError(describe(source), error.reason) from None

    def predict_stack(
        self, names: Sequence[str], images: NDArray[np.uint8], threads: int | None = None
    ) -> list[Prediction | PredictionError]:
        """Classify photos that ``preprocess`` made images of.

        names    of the photos, for results and errors
        images   uint8 [N, h, w, 3]
        threads  threads inside this run; None: the predictor's own number

        Returns one result for each. Raises BundleError if the model was replaced or damaged since.
        """
        threads = self.threads if threads is None else threads
        self._sessions.get(threads)  # a replaced or damaged model is not a failure on these photos
        results: list[Prediction | PredictionError] = []
        try:
            outputs = self.run_outputs(images, threads=threads)
        except BundleError as error:
            for name in names:
                failure = PredictionError(name, error.path, error.reason, error.hint)
                failure.__cause__ = without_traceback(error)
                results.append(failure)
            return results
        for index, name in enumerate(names):
            values = {output: rows[index] for output, rows in outputs.items()}
            if all(np.isfinite(value).all() for value in values.values()):
                results.append(self._prediction(name, values))
            else:
                reason = f"its answers for {name} are not finite numbers"
                results.append(PredictionError(name, self.path, reason, "Run `edgetl selftest`."))
        return results

    def _predict_one(self, source: Source, images: NDArray[np.uint8]) -> Prediction:
        (result,) = self.predict_stack([describe(source)], images, self.threads)
        if isinstance(result, PredictionError):
            raise result
        return result

    def _prediction(self, name: str, values: dict[str, NDArray[np.float32]]) -> Prediction:
        answers = (values[LOGITS], values[PROBABILITIES], self.card.promises)
        if (limits := self.card.unknown) is None:
            return Prediction(name, self.labels, *answers)
        score = float(values[OOD_SCORE])
        is_unknown = bool(limits.is_unknown(score))
        return Prediction(name, self.labels, *answers, score, is_unknown, values[EMBEDDING])

    def _checked_card(self, session: onnxruntime.InferenceSession) -> ModelCard:
        """The model card in the file, if it fits the outputs and the manifest, else BundleError."""
        card = read_card(self.path, session.get_modelmeta().custom_metadata_map)
        inputs = {value.name: value.type for value in session.get_inputs()}
        outputs = {value.name: value.type for value in session.get_outputs()}
        outputs.pop(EVIDENCE, None)  # where it could not be left out
        expected = dict.fromkeys(card.outputs, "tensor(float)")
        if inputs not in _INPUTS or outputs != expected:
            reason = f"its inputs {inputs} and outputs {outputs} are not those of an export"
            raise BundleError(self.path, reason)
        for value in session.get_outputs():
            if value.name not in ANSWERS:
                continue
            if len(value.shape) != 2 or value.shape[1] != len(card.labels):
                reason = f"it has {len(card.labels)} labels for {value.name} of shape {value.shape}"
                raise BundleError(self.path, reason)
        if self.bundle is not None and card.to_dict() != self.bundle.card.to_dict():
            reason = "the model card in the ONNX file differs from the manifest's"
            raise BundleError(self.path, reason, "Export it again.")
        return card

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(Predictor, self.path, **self.options), ()

    def __repr__(self) -> str:
        return f"Predictor({str(self.path)!r}, {len(self.labels)} classes)"


def _require_positive(name: str, value: Any) -> None:
    if not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name} is {value!r}; it must be a whole number, at least 1")
