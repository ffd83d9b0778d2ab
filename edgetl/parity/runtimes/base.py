"""What a runtime is: one small class that shows a photo's stages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from edgetl.errors import RuntimeUnavailableError
from edgetl.parity.check_photos import Photo, Unreadable
from edgetl.parity.stages import Refusal, Stages
from edgetl.runtime.bundle.bundle_folder import DEFAULT_PRECISION, Bundle, read_card
from edgetl.runtime.bundle.model_card import ModelCard

if TYPE_CHECKING:
    from torch import nn

LONE_PRECISION = DEFAULT_PRECISION  # what a model outside a bundle is taken for, unless one says otherwise: it does not


@dataclass(frozen=True)
class Subject:
    """What is checked, and the trained network that it is checked against.

    path       the bundle's folder, or a lone .onnx file
    bundle     None for a lone file
    card       the bundle's own description of its model
    model      its ONNX file of ``precision``; None if it has none
    network    the trained network in eval mode, on the CPU: float32 [N, 3, h, w], normalized → logits float32 [N, classes]
    reference  the description that came with the network
    threads    threads for each runtime
    """

    path: Path
    bundle: Bundle | None
    card: ModelCard
    model: Path | None
    precision: str
    network: nn.Module
    reference: ModelCard
    threads: int = 1

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
        """Read a bundle or a lone model's description. Raises BundleError; a damaged file inside is found later.

        precision  which of a bundle's models, None for its default; what a lone model is, None for LONE_PRECISION
        """
        path = Path(path)
        if path.is_file():
            return cls(
                path,
                None,
                lone_card(path),
                path,
                precision or LONE_PRECISION,
                network,
                reference,
                threads,
            )
        bundle = Bundle.open(path)
        model, chosen = None, precision or LONE_PRECISION
        if bundle.precisions or precision:
            model = path / bundle.model_name(precision)
            chosen = precision or bundle.precisions[0]
        return cls(path, bundle, bundle.card, model, chosen, network, reference, threads)

    def file(self, kind: str) -> Path:
        """Path of the bundle's file of a ``--format``. Raises RuntimeUnavailableError if it has none, BundleError for one
        that is not of the bundle."""
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
    """The description inside an ONNX file's metadata, read without running the model. Raises BundleError."""
    from edgetl.onnx_graph.onnx_file import read_metadata

    return read_card(model, read_metadata(model))


class Runtime(ABC):
    """One way to run the model. Subclass it and add the class to RUNTIMES: that is all a new runtime needs.

    The constructor loads the model. It raises RuntimeUnavailableError or MissingDependencyError where this machine or
    this bundle doesn't have what the runtime needs (it is skipped, unless it was asked for); any other exception, then
    or later, is a failure.
    """

    name: ClassVar[str]
    decodes: ClassVar[bool] = False
    """It reads the photo's file itself, so it is given the unreadable ones as well."""
    judged: ClassVar[bool] = True
    """False: its figures are shown for information."""
    follows_precision: ClassVar[bool] = False
    """It runs the file of the precision that is checked; the others are float32."""

    @abstractmethod
    def __init__(self, subject: Subject) -> None: ...

    @abstractmethod
    def run(self, photos: Sequence[Photo | Unreadable]) -> Sequence[Stages | Refusal]:
        """One result a photo, in order. Unreadable ones come only where ``decodes``."""

    def close(self) -> None:
        """Give back what outlives the object: a process, a folder."""
        return
