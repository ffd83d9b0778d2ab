"""A file that another program wrote: the weights of a named architecture, or a whole network."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from edgetl.errors import TrainingError, first_line
from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.system.shell import shell_word
from edgetl.training.config.run_folder import BEST, LAST
from edgetl.training.models.backbone import TIMM_PREFIX, Backbone
from edgetl.training.models.backbones import build
from edgetl.training.models.pretrained_weights import (
    head_outputs,
    load_weights,
    read_card,
    read_weights,
)
from edgetl.training.models.torchscript_program import is_torchscript, read_program
from edgetl.training.torch_env.vision_libraries import models

WHOLE_NETWORK = (
    "Save the whole network where it was trained, with torch.jit.script(model.eval()).save(FILE), "
    "and import that; or pass it to edgetl.import_network in Python."
)


@dataclass(frozen=True)
class ForeignNetwork:
    """A network as it was found.

    network    normalized float32 [N, 3, h, w] → logits or probabilities; in eval mode, on the CPU
    backbone   the architecture that was named, if ``network`` can be rebuilt from its name, else ""
    published  the preprocessing of the architecture's own weights, if it was named
    notes      what was decided
    """

    network: nn.Module
    backbone: str
    published: PreprocessSpec | None
    notes: tuple[str, ...] = ()


def read_network(path: Path, name: str | None, classes: int) -> ForeignNetwork:
    """Read a state dict of the architecture ``name``, or a TorchScript file.

    classes  how many labels there are

    Raises TrainingError for a file that can't be read, and for weights that are not those of
    ``name``, or whose classifier is not for so many classes.
    """
    run = path.parent if path.name == LAST else path
    if read_card(run / BEST if run.is_dir() else run):
        raise TrainingError(
            f"{path} is a run of edgetl already.", f"Export it: edgetl export {shell_word(run)}"
        )
    if not path.is_file() or path.suffix == ".onnx":
        raise TrainingError(
            f"{path} is not a file of PyTorch.",
            "Name the file of the weights (.pth, .safetensors) or the TorchScript file.",
        )
    if not is_torchscript(path):
        return _with_weights(path, read_weights(path), name, classes)
    try:
        network = read_program(path).float()
    except RuntimeError as error:
        raise TrainingError(f"{path} can't be read as TorchScript: {first_line(error)}") from error
    return ForeignNetwork(network, "", published_spec(name))


def published_spec(name: str | None) -> PreprocessSpec | None:
    """The preprocessing of the architecture ``name``. Raises TrainingError for an unknown one."""
    return build(name, 1, weights="none").spec if name else None


def _with_weights(
    path: Path, tensors: Mapping[str, Tensor], name: str | None, classes: int
) -> ForeignNetwork:
    if name is None:
        raise TrainingError(
            f"{path} holds weights, but not the network that they belong to.",
            f"Name its architecture with --backbone NAME. {WHOLE_NETWORK}",
        )
    backbone = build(name, classes, weights="none")
    tensors, notes = _with_plain_head(tensors, backbone.head)
    _check_outputs(path, tensors, backbone, classes)
    try:
        has_head = load_weights(backbone, tensors, str(path))
    except TrainingError as error:
        guesses = ", ".join(_fitting_backbones(tensors, name))
        hint = f"They fit --backbone {guesses}." if guesses else error.hint
        raise TrainingError(error.message, hint) from error
    if not has_head:
        raise TrainingError(
            f"The classifier in {path} is not the one layer {backbone.head} of {name}.",
            WHOLE_NETWORK,
        )
    return ForeignNetwork(backbone.module.eval(), name, backbone.spec, notes)


def _check_outputs(
    path: Path, tensors: Mapping[str, Tensor], backbone: Backbone, classes: int
) -> None:
    outputs = head_outputs(tensors, backbone.heads)
    if outputs and outputs != classes:
        raise wrong_number_of_labels(str(path), outputs, classes)
    own = backbone.module.state_dict().keys()
    has_head = any(key.startswith(f"{backbone.head}.") for key in tensors)
    if not has_head and len(own & tensors.keys()) > len(own) / 2:
        raise TrainingError(
            f"{path} holds no classifier: there is no tensor {backbone.head}.weight.",
            "To train one on it: "
            f"edgetl train DATA -o RUN --backbone {backbone.name} --weights {shell_word(path)}",
        )


def wrong_number_of_labels(source: str, outputs: int, classes: int) -> TrainingError:
    """The error for a network with another number of outputs than there are labels."""
    given = "1 label was" if classes == 1 else f"{classes:,} labels were"
    return TrainingError(
        f"{source} tells {outputs:,} classes apart; {given} given.",
        "Name all of them in the order of the outputs; torchvision's ImageFolder sorts by name.",
    )


def _with_plain_head(
    tensors: Mapping[str, Tensor], head: str
) -> tuple[Mapping[str, Tensor], tuple[str, ...]]:
    """The tensors, with a classifier that was wrapped as ``Sequential(Dropout, Linear)`` unwrapped.

    Dropout does nothing when a network answers.
    """
    layers = {key.rpartition(".")[0] for key in tensors if key.startswith(f"{head}.")}
    if len(layers) != 1 or head in layers:
        return tensors, ()
    (layer,) = layers
    plain = {
        f"{head}.{key.removeprefix(f'{layer}.')}" if key.startswith(f"{layer}.") else key: value
        for key, value in tensors.items()
    }
    return plain, (
        f"The layer {layer} of the file is the classifier; what surrounded it has no weights "
        "(dropout, softmax) and was left out.",
    )


def _fitting_backbones(tensors: Mapping[str, Tensor], name: str) -> Iterator[str]:
    """Related architectures, of torchvision and of the same name in timm, that have these weights.

    They are built without memory, in a second or two.
    """
    import timm

    plain = name.removeprefix(TIMM_PREFIX)
    found = re.match(r"[a-z]*", plain)
    family = found[0] if found else plain
    published = [each for each in models.list_models(module=models) if each.startswith(family)]
    candidates = [*published, *(TIMM_PREFIX + each for each in published if timm.is_model(each))]
    shapes = {key: value.shape for key, value in tensors.items()}
    for candidate in candidates:
        try:
            with torch.device("meta"):
                if candidate.startswith(TIMM_PREFIX):
                    module = timm.create_model(candidate.removeprefix(TIMM_PREFIX))
                else:
                    module = models.get_model(candidate, weights=None)
        except NotImplementedError:  # a few compute with what has no memory
            continue
        own = {key: value.shape for key, value in module.state_dict().items()}
        if own.keys() == shapes.keys() and all(
            own[key][1:] == shape[1:] for key, shape in shapes.items()
        ):
            yield candidate
