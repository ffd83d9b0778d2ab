"""The base class of all runtimes, and the model that they run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from edgetl.errors import RuntimeUnavailableError
from edgetl.parity.check_photos import Photo, Unreadable
from edgetl.parity.stages import LeftOut, Refusal, Stages
from edgetl.runtime.bundle.bundle_folder import DEFAULT_PRECISION, Bundle, read_card
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.runtime.bundle.tensor_names import EVIDENCE

if TYPE_CHECKING:
    from torch import nn

    from edgetl.training.models.checkpoint import Trained
    from edgetl.training.models.ood_detector import OODDetector


@dataclass(frozen=True)
class Subject:
    """The exported model to check, and the trained network to compare it with.

    path       the bundle's folder, or a lone .onnx file
    bundle     None for a lone file
    card       the export's model card
    model      its ONNX file of ``precision``; None if it has none
    network    the trained network in eval mode, on the CPU: float32 [N, 3, h, w], normalized →
               logits float32 [N, classes], and features float32 [N, features] with a detector,
               and evidence float32 [N, classes, y, x] if ``card`` has biases
    reference  the network's model card
    threads    threads for each runtime
    detector   of the network's score; None unless ``card`` has a threshold for it
    """

    path: Path
    bundle: Bundle | None
    card: ModelCard
    model: Path | None
    precision: str
    network: nn.Module
    reference: ModelCard
    threads: int = 1
    detector: OODDetector | None = None

    @classmethod
    def open(
        cls,
        path: str | Path,
        network: nn.Module,
        reference: ModelCard,
        *,
        precision: str | None = None,
        threads: int = 1,
    ) -> Subject:
        """Read the model card of a bundle or a lone model; a bundle's files aren't checked yet.

        precision  which of a bundle's models, None for its default; what a lone model is, which
                   does not say so itself, None for DEFAULT_PRECISION

        Raises BundleError.
        """
        path, chosen = Path(path), precision or DEFAULT_PRECISION
        if path.is_file():
            return cls(path, None, lone_card(path), path, chosen, network, reference, threads)
        bundle, model = Bundle.open(path), None
        if bundle.precisions or precision:
            model = path / bundle.model_name(precision)
            chosen = precision or bundle.precisions[0]
        return cls(path, bundle, bundle.card, model, chosen, network, reference, threads)

    @classmethod
    def of_run(
        cls, path: str | Path, trained: Trained, *, precision: str | None = None, threads: int = 1
    ) -> Subject:
        """As ``open``, of the run that it was exported from, with score and maps if it has them."""
        from edgetl.exporting.deployment import deployment_of
        from edgetl.exporting.formats.mapped_network import MappedNetwork, maps_of

        subject = cls.open(
            path, trained.network, trained.card, precision=precision, threads=threads
        )
        if (limits := subject.card.unknown) is not None:
            expected = deployment_of(trained, keep_known=limits.keep_known)
            subject = replace(
                subject,
                network=expected.network,
                reference=expected.card,
                detector=expected.detector,
            )
        if subject.card.biases is not None and (maps := maps_of(trained)):
            mapped = MappedNetwork(subject.network, maps)
            reference = replace(subject.reference, biases=mapped.biases)
            subject = replace(subject, network=mapped, reference=reference)
        return subject

    @property
    def onnx_outputs(self) -> tuple[str, ...]:
        """Names of what its ONNX file gives."""
        return self.card.outputs if self.card.biases is None else (*self.card.outputs, EVIDENCE)

    def file(self, kind: str) -> Path:
        """Path of the bundle's file of a ``--format``.

        Raises RuntimeUnavailableError if it has none, BundleError if the file is not the bundle's.
        """
        name = self.bundle.manifest.get(kind) if self.bundle else None
        if not name:
            raise RuntimeUnavailableError(
                f"{self.path} holds no {kind} model.", f"Export it with `--format {kind}`."
            )
        assert self.bundle is not None
        return self.bundle.file(str(name))

    def onnx(self) -> Path:
        """Path of the ONNX file. Raises RuntimeUnavailableError if there is none."""
        if self.model is None:
            raise RuntimeUnavailableError(
                f"{self.path} holds no ONNX model.", "Export it with `--format onnx`."
            )
        return self.model


def lone_card(model: Path) -> ModelCard:
    """The model card in an ONNX file's metadata, read without running it. Raises BundleError."""
    from edgetl.onnx_graph.onnx_file import read_metadata

    return read_card(model, read_metadata(model))


class Runtime(ABC):
    """One way to run the model. To add a runtime, subclass it and add the class to RUNTIMES.

    The constructor loads the model. It raises RuntimeUnavailableError or MissingDependencyError
    where this machine or this bundle lacks what the runtime needs; the runtime is then skipped,
    unless it was asked for. Any other exception, from any method, is a failure of the runtime.
    """

    name: ClassVar[str]
    decodes: ClassVar[bool] = False
    """It reads the photos' files itself, and is therefore given the unreadable ones, too."""
    judged: ClassVar[bool] = True
    """False: its figures are shown for information, without a verdict."""
    follows_precision: ClassVar[bool] = False
    """It runs the file of the chosen precision; the others run float32."""
    exact_integers: bool = False
    """It runs int8 in onnxruntime's integer kernels for a CPU, which all give the same bits."""
    on_request: ClassVar[bool] = False
    """It takes so long that it only runs where it is asked for."""

    @abstractmethod
    def __init__(self, subject: Subject) -> None: ...

    @abstractmethod
    def run(self, photos: Sequence[Photo | Unreadable]) -> Sequence[Stages | Refusal | LeftOut]:
        """One result per photo, in order. There are unreadable photos only if ``decodes``."""

    def close(self) -> None:
        """Release what outlives the object: a process, a folder."""
        return
