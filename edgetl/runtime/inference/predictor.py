"""The predictor that other programs embed: an encoded photo in, a label and probabilities out."""

from __future__ import annotations

import hashlib
import math
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from io import BufferedReader
from itertools import chain, islice
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edgetl.errors import BundleError, EdgetlError, ImageError, NoSuchModelError
from edgetl.runtime.bundle.bundle_folder import Bundle, looking_at, open_to_read, read_card
from edgetl.runtime.bundle.embedded_checksum import verify_checksum
from edgetl.runtime.bundle.memory_copy import Content, private_copy
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.runtime.bundle.tensor_names import IMAGES, LOGITS, PROBABILITIES, RESIZED
from edgetl.runtime.images.decode import MAX_PIXELS, Source, describe, read_image
from edgetl.runtime.images.resize import refuse_extreme_shape, resize_for_graph, resize_image
from edgetl.runtime.inference.network_part import network_edits, set_bytes
from edgetl.runtime.inference.session import Providers, open_session
from edgetl.system.machine import cores
from edgetl.system.ordered_map import ordered_map
from edgetl.system.paths import is_there

if TYPE_CHECKING:
    import onnxruntime
    from numpy.typing import NDArray
    from PIL import Image

    from edgetl.runtime.inference.self_test import SelfTest

_INPUTS = [{name: "tensor(uint8)"} for name in (IMAGES, RESIZED)]
_OUTPUTS = {LOGITS: "tensor(float)", PROBABILITIES: "tensor(float)"}
_ENLARGED = 16  # times the network's input: whoever limits photos to less than that still wants them resized
_GPU_BATCH = (
    32  # photos a run where one photo leaves the device idle; a CPU gains nothing from more than 1
)


class Score(NamedTuple):
    """A label and its probability, 0..1."""

    label: str
    confidence: float


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """The answer for one photo.

    source         the photo's path, or what kind of object it was
    labels         class names in the order of the outputs
    logits         float32 [classes]
    probabilities  float32 [classes], 0..1, sum 1
    """

    source: str
    labels: tuple[str, ...]
    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32]

    @property
    def index(self) -> int:
        """Position of the most probable class; the first one of equals."""
        return int(self.probabilities.argmax())

    @property
    def label(self) -> str:
        """Name of the most probable class."""
        return self.labels[self.index]

    @property
    def confidence(self) -> float:
        """Probability of the most probable class, 0..1."""
        return float(self.probabilities[self.index])

    def top(self, count: int = 5) -> list[Score]:
        """The ``count`` most probable classes (fewer if there are fewer), best first."""
        best = np.argsort(-self.probabilities, kind="stable")[: max(count, 0)]
        return [Score(self.labels[i], float(self.probabilities[i])) for i in best]

    def __repr__(self) -> str:
        return (
            f"Prediction({self.source!r}, label={self.label!r}, confidence={self.confidence:.4f})"
        )


class Predictor:
    """Classifies photos with an exported model through onnxruntime.

    model       a bundle folder, or a lone model.onnx
    providers   execution providers: "auto" (CUDA where it works, else the CPU), a name ("cpu", "cuda"), or
                names in order of preference; a provider asked for by name runs or this raises
    threads     threads inside one run of the model; None: one a core
    precision   which of a bundle's models ("fp32", "fp16", "int8"); None: its default
    max_pixels  the largest photo that is decoded, height × width; its resize may take as many, or 16 times
                the network's input

    One object may be shared by threads, and can be pickled: it is loaded again where it arrives. It works in a forked
    process too, which must end with ``os._exit``, as multiprocessing's do: onnxruntime hangs in ``sys.exit`` there.
    Raises BundleError for a model that is damaged or not ours, RuntimeUnavailableError, MissingDependencyError.
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
        if not os.fspath(
            model
        ):  # as from a variable that nobody set; it would mean the current folder
            raise ValueError("model is empty; name a bundle folder or a model.onnx")
        self.path = Path(model)
        self.providers = providers
        self.threads = threads
        self.precision = precision
        self.max_pixels = max_pixels
        with looking_at(self.path):
            self.path = (
                self.path.absolute()
            )  # a daemon changes its folder, and further sessions are opened later
            if self.path.suffix == ".safetensors":
                hint = "Export it first: edgetl export RUN -o DEST"
                raise NoSuchModelError(
                    self.path, "it is a training checkpoint, no model to run", hint
                )
            self.bundle = (
                Bundle.open(self.path) if is_there(self.path) and self.path.is_dir() else None
            )
        if self.bundle is None and precision is not None:
            raise NoSuchModelError(
                self.path,
                "a lone model has one precision only",
                "Leave the precision out, or name the bundle.",
            )
        self._identity: tuple[int, ...] | None = None
        self._forget_sessions()
        session = self._session(threads)
        self.card = self._checked_card(session)
        self._input = session.get_inputs()[0].name
        _predictors.add(self)

    @property
    def options(self) -> dict[str, Any]:
        """What else than the model it was made with, by keyword."""
        return {
            name: getattr(self, name)
            for name in ("providers", "threads", "precision", "max_pixels")
        }

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of the outputs."""
        return self.card.labels

    @cached_property
    def model_id(self) -> str:
        """Sixteen hex digits that tell this model file from any other: the start of its SHA-256."""
        if self.bundle is not None:
            return str(
                self.bundle.manifest["files"][self.bundle.model_name(self.precision)]["sha256"]
            )[:16]
        with self._open_lone_model() as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]

    @property
    def provider(self) -> str:
        """Name of the execution provider that runs the model."""
        return str(self._session(self.threads).get_providers()[0])

    def __call__(self, source: Source) -> Prediction:
        """Classify one photo: a path, bytes, a binary file, a PIL image or a uint8 array (see ``read_image``).

        Raises ImageError if it is not one whole photo.
        """
        logits, probabilities = self.run_model(self._pixels(source)[np.newaxis])
        return self._prediction(describe(source), logits[0], probabilities[0])

    def batch(
        self, sources: Iterable[Source], *, workers: int | None = None
    ) -> Iterator[Prediction | ImageError]:
        """Classify many photos on all cores; yields one result or one ImageError for each source, in order.

        Where the model fails on a photo, what the single call raises is the ImageError's ``__cause__``.

        Takes sources as it goes, so that an endless iterable costs no memory.

        On a CPU, several workers use a second session, of one thread a run, unless the predictor was made with ``threads``.

        workers  photos worked on at once; None: one a core

        Raises TypeError for one photo.
        """
        # Of an array's rows and a file's lines each would be taken for a photo.
        one = isinstance(sources, (str, bytes, bytearray, memoryview, os.PathLike)) or hasattr(
            sources, "read"
        )
        if one or (isinstance(sources, np.ndarray) and sources.ndim < 4):
            raise TypeError(
                "batch takes many photos: pass a list of them, or call the predictor with the one."
            )
        workers = cores() if workers is None else workers
        _require_positive("workers", workers)
        batch_size = _batch_size(self.provider)
        # Whole photos side by side beat one photo on many threads: nothing ever waits for another core.
        session_threads = (
            1 if batch_size == 1 and self.threads is None and workers > 1 else self.threads
        )
        return self._batch(_chunks(sources, batch_size), workers, session_threads)

    def _batch(
        self, chunks: Iterator[list[Source]], workers: int, session_threads: int | None
    ) -> Iterator[Prediction | ImageError]:
        start = list(islice(chunks, 2))
        if (
            len(start) == 1
        ):  # nothing to do side by side, so the session that is open already will do
            yield from self._classify(start[0], self.threads)
            return
        self._session(session_threads)  # what is wrong with the model is no photo's fault
        from concurrent.futures import ThreadPoolExecutor

        work = partial(self._classify, threads=session_threads)
        with (
            ThreadPoolExecutor(workers, thread_name_prefix="edgetl") as pool,
            closing(
                ordered_map(pool, work, chain(start, chunks), 2 * workers + 1)
            ) as answers,  # the caller may stop half way
        ):
            for answer in answers:
                yield from answer

    def resize(self, image: Image.Image) -> NDArray[np.uint8]:
        """A picture of mode RGB → uint8 [h, w, 3] for ``run_model``. Raises ImageError as ``resize_image`` does."""
        # A model that had to be loaded whole would enlarge what is cropped already.
        return (resize_image if self._input == RESIZED else resize_for_graph)(image, self.card.spec)

    def run_model(
        self, images: NDArray[np.uint8], *, threads: int | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The model alone: uint8 [N, h, w, 3] as ``resize`` makes it → logits and probabilities, float32 [N, classes] each.

        threads  threads inside this run; None: the predictor's own number

        Raises BundleError if the model fails.
        """
        session = self._session(self.threads if threads is None else threads)
        try:
            logits, probabilities = session.run([LOGITS, PROBABILITIES], {self._input: images})
        except Exception as error:  # onnxruntime's own exceptions share no base class but this
            raise BundleError(self.path, f"the model failed: {error}") from error
        expected = (len(images), len(self.labels))
        if logits.shape != expected or probabilities.shape != expected:
            raise BundleError(
                self.path,
                f"it answered {list(probabilities.shape)} where {list(expected)} was to come",
            )
        return logits, probabilities

    def selftest(self, *, tolerance: float | None = None) -> SelfTest:
        """Run the bundle's golden photos and compare with the trained model's answers; see ``selftest.py``."""
        from edgetl.runtime.inference.self_test import selftest

        return selftest(self, tolerance=tolerance)

    def _classify(
        self, sources: Sequence[Source], threads: int | None
    ) -> list[Prediction | ImageError]:
        results: list[Prediction | ImageError | None] = [None] * len(sources)
        by_shape: dict[tuple[int, ...], list[tuple[int, NDArray[np.uint8]]]] = {}
        for i, source in enumerate(sources):
            try:
                pixels = self._pixels(source)
                by_shape.setdefault(pixels.shape, []).append((i, pixels))
            except ImageError as error:
                results[i] = error
        for group in by_shape.values():
            indices = [i for i, _ in group]
            try:
                outputs = self.run_model(np.stack([pixels for _, pixels in group]), threads=threads)
            except EdgetlError as error:
                for i in indices:
                    results[i] = _unanswered(sources[i], error)
                continue
            for i, logits, probabilities in zip(indices, *outputs, strict=True):
                try:
                    results[i] = self._prediction(describe(sources[i]), logits, probabilities)
                except BundleError as error:
                    results[i] = _unanswered(sources[i], error)
        return [result for result in results if result is not None]

    def _pixels(self, source: Source) -> NDArray[np.uint8]:
        """What the graph is fed, uint8 [h, w, 3]. Raises ImageError naming ``source``."""
        image = read_image(source, max_pixels=self.max_pixels)
        try:
            if self.max_pixels < MAX_PIXELS:
                size = self.card.spec.size
                input_pixels = math.prod(size) if isinstance(size, tuple) else size**2
                refuse_extreme_shape(
                    image, self.card.spec, max(self.max_pixels, _ENLARGED * input_pixels)
                )
            return self.resize(image)
        except ImageError as error:
            raise ImageError(describe(source), error.reason) from None

    def _prediction(
        self, name: str, logits: NDArray[np.float32], probabilities: NDArray[np.float32]
    ) -> Prediction:
        if not (np.isfinite(probabilities).all() and np.isfinite(logits).all()):
            raise BundleError(
                self.path,
                f"its answers for {name} are not finite numbers",
                "Run `edgetl selftest`.",
            )
        return Prediction(name, self.card.labels, logits, probabilities)

    # Sessions are opened when first needed, and opened again in a forked process.

    def _forget_sessions(self) -> None:
        self._sessions: dict[int | None, onnxruntime.InferenceSession] = {}
        self._lock = threading.Lock()

    def _session(self, threads: int | None) -> onnxruntime.InferenceSession:
        session = self._sessions.get(threads)
        if session is None:
            with self._lock:
                session = self._sessions.get(threads)
                if session is None:
                    session = self._sessions[threads] = self._open(threads)
        return session

    def _after_fork(self) -> None:
        """A session's threads stay with the parent: here a run would wait for them for ever, and so would its end."""
        import ctypes

        for session in self._sessions.values():
            ctypes.pythonapi.Py_IncRef(
                ctypes.py_object(session)
            )  # never ended, not even when the process is
        self._forget_sessions()

    def _open(self, threads: int | None) -> onnxruntime.InferenceSession:
        check: Callable[[Content], object]
        if self.bundle is not None:
            name = self.bundle.model_name(self.precision)
            file, shown, check = (
                self.bundle.open_file(name),
                self.bundle.path / name,
                partial(self._check_bundle_file, name),
            )
        else:
            file, shown, check = (
                self._open_lone_model(),
                self.path,
                partial(verify_checksum, self.path),
            )
        with looking_at(shown), file, private_copy(file) as copy:
            with copy.content() as content:
                check(content)
                edits = network_edits(content) or {}
                before = {position: content[position] for position in edits}
                set_bytes(content, edits)
            open_copy = partial(open_session, providers=self.providers, threads=threads, name=shown)
            try:
                return open_copy(copy.source)
            except BundleError:  # another program may have saved it, its nodes in another order
                if not edits:
                    raise
            with copy.content() as content:
                set_bytes(content, before)
            return open_copy(copy.source)

    def _check_bundle_file(self, name: str, content: Content) -> None:
        """Raises BundleError unless ``content`` is the bundle's file ``name`` as the manifest had it when it was opened."""
        assert self.bundle is not None
        try:
            self.bundle.check(name, content)
        except BundleError:
            if Bundle.open(self.path).manifest != self.bundle.manifest:
                raise self._replaced() from None
            raise

    def _replaced(self) -> BundleError:
        return BundleError(
            self.path,
            "it was replaced after it was loaded",
            "Make a new Predictor for the new model.",
        )

    def _open_lone_model(self) -> BufferedReader:
        """The same file each time, open for reading. Raises BundleError."""
        with looking_at(self.path):
            if not is_there(self.path):
                raise NoSuchModelError(
                    self.path,
                    "there is no such bundle or model",
                    "Name a folder that `edgetl export` wrote.",
                )
            if not self.path.is_file():
                raise BundleError(self.path, "it is not a regular file")
        file = open_to_read(self.path)
        status = os.fstat(file.fileno())
        identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if self._identity not in (None, identity):
            file.close()
            raise self._replaced()
        self._identity = identity
        return file

    def _checked_card(self, session: onnxruntime.InferenceSession) -> ModelCard:
        """The model's own card, once it fits its outputs and the manifest."""
        card = read_card(self.path, session.get_modelmeta().custom_metadata_map)
        inputs = {value.name: value.type for value in session.get_inputs()}
        outputs = {value.name: value.type for value in session.get_outputs()}
        if inputs not in _INPUTS or outputs != _OUTPUTS:
            raise BundleError(
                self.path, f"its inputs {inputs} and outputs {outputs} are not those of an export"
            )
        for value in session.get_outputs():
            if len(value.shape) != 2 or value.shape[1] != len(card.labels):
                raise BundleError(
                    self.path,
                    f"it has {len(card.labels)} labels for {value.name} of shape {value.shape}",
                )
        if self.bundle is not None and card.to_dict() != self.bundle.card.to_dict():
            raise BundleError(
                self.path,
                "the model's own description differs from the manifest's",
                "Export it again.",
            )
        return card

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(Predictor, self.path, **self.options), ()

    def __repr__(self) -> str:
        return f"Predictor({str(self.path)!r}, {len(self.labels)} classes)"


_predictors: weakref.WeakSet[Predictor] = weakref.WeakSet()


def _after_fork() -> None:
    for predictor in list(_predictors):
        predictor._after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork either
    os.register_at_fork(after_in_child=_after_fork)


def _chunks(sources: Iterable[Source], size: int) -> Iterator[list[Source]]:
    iterator = iter(sources)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _batch_size(provider: str) -> int:
    return 1 if provider == "CPUExecutionProvider" else _GPU_BATCH


def _unanswered(source: Source, error: EdgetlError) -> ImageError:
    """For a photo that the model failed on. Its ``__cause__`` tells it from one that can't be read."""
    failure = ImageError(describe(source), error.message, error.hint)
    failure.__cause__ = error
    return failure


def _require_positive(name: str, value: Any) -> None:
    if not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name} is {value!r}; it must be a whole number, at least 1")
