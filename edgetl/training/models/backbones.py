"""Networks to start from, each with a new head and the preprocessing published with its weights."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast

from torch import Tensor, nn

from edgetl.errors import SpecError, TrainingError, first_line
from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.training.models.blocks import Block, find_blocks, run_once
from edgetl.training.models.pretrained_weights import (
    embedded_weights_file,
    head_outputs,
    load_by_name,
    load_in_order,
    read_card,
    read_weights,
)
from edgetl.training.models.torchscript_program import PROGRAM
from edgetl.training.torch_env.vision_libraries import InterpolationMode, TimmLinear, models

TIMM_PREFIX = "timm/"
_IMAGENET_CLASSES = 1000
EMBEDDED = {"efficientnet_lite0": 256, "efficientnet_lite1": 272, "efficientnet_lite2": 288}
"""Backbones whose weights come in a package → side of their input, pixels.

They were trained at 224, 240 and 260 on enlarged random crops, so they know objects at a larger
scale than the usual centre crop at that size shows. The whole shorter side costs a third more time
and is more accurate: see scripts/experiments.md.
"""
# Pretrained GoogLeNet and Inception change the normalization inside the network. Without weights
# they must, too, since that is how a checkpoint is rebuilt. Their auxiliary heads only help
# training from random weights.
_TORCHVISION_EXTRAS: dict[str, dict[str, Any]] = {
    "googlenet": {"transform_input": True, "aux_logits": False, "init_weights": True},
    "inception_v3": {"transform_input": True, "aux_logits": False, "init_weights": True},
}

T = TypeVar("T")

Level: TypeAlias = tuple[str, int]
"""The attribute path of a layer whose feature maps a multi-level head uses, and its channels."""


@dataclass(frozen=True)
class Backbone:
    """A classifier to train.

    module  normalized float32 [N, 3, h, w] → logits float32 [N, classes]
    spec    the validation preprocessing published with its weights
    heads   attribute paths of the classifier layers (two for distilled transformers, else one)
    blocks  everything else in forward order; see ``edgetl.training.models.blocks``
    levels  earlier layers that the head uses too; see ``edgetl.training.models.multi_level``
    file_head  how many classes the head in the file of weights was for; 0 without one, or if
               edgetl wrote it for the same labels
    """

    name: str
    module: nn.Module
    spec: PreprocessSpec
    heads: tuple[str, ...]
    blocks: tuple[Block, ...]
    levels: tuple[Level, ...] = ()
    file_head: int = 0

    @property
    def head(self) -> str:
        """Attribute path of the (first) classifier layer."""
        return self.heads[0]

    @property
    def head_layer(self) -> Any:
        """The (first) classifier layer."""
        return self.module.get_submodule(self.head)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the network's input."""
        return input_size(self.spec)

    @property
    def has_linear_head(self) -> bool:
        """Whether the logits are the output of one ``nn.Linear`` with a bias: a convex problem."""
        layer = self.head_layer
        return (
            len(self.heads) == 1
            and type(layer) in (nn.Linear, TimmLinear)
            and layer.bias is not None
        )

    @property
    def has_convolution_head(self) -> bool:
        """Whether the classifier layer looks at each place by itself, as SqueezeNet's does."""
        layer = self.head_layer
        return len(self.heads) == 1 and isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1)


def input_size(spec: PreprocessSpec) -> tuple[int, int]:
    """(height, width) of the network's input, which the spec of every backbone fixes."""
    assert spec.fixed_size is not None
    return spec.fixed_size


def refusal(backbone: Backbone) -> Exception | None:
    """The error that the network raises for photos of its spec's size; None if it accepts them."""
    try:
        run_once(backbone.module, backbone.size)
    except Exception as error:  # of another type in each library
        return error
    return None


def build(
    name: str, classes: int, *, weights: str | Path = "auto", labels: Sequence[str] | None = None
) -> Backbone:
    """A backbone with a head for ``classes`` classes, in training mode, on the CPU.

    name     one of ``EMBEDDED``, a torchvision classifier's name, or "timm/<name>"
    weights  "auto": pretrained, through the library's own loader; "none": random; else a file
             (see ``read_weights``)
    labels   names of the classes: a file's head is not used if edgetl wrote it for other labels

    The head is random, or that of a file for as many classes. Raises TrainingError for an unknown
    name, and for weights that can't be loaded or don't fit.
    """
    if classes < 1:
        raise TrainingError(f"A classifier needs at least one class, not {classes}.")
    pretrained = weights == "auto"
    if name in EMBEDDED:
        backbone = _build_embedded(name, classes, pretrained)
    elif name.startswith(TIMM_PREFIX):
        backbone = _build_timm(name, classes, pretrained)
    else:
        backbone = _build_torchvision(name, classes, pretrained)
    if weights not in ("auto", "none"):
        backbone = _load_file(Path(weights), backbone, labels)
    return backbone


def _load_file(path: Path, backbone: Backbone, labels: Sequence[str] | None) -> Backbone:
    tensors, card = read_weights(path), read_card(path)
    if PROGRAM in tensors:
        raise TrainingError(
            f"{path} holds a whole network as TorchScript, not weights to train further.",
            "Import its state dict, or train from weights of a named backbone.",
        )
    file_head = head_outputs(tensors, backbone.heads)
    if labels is not None and card.get("labels") == list(labels):
        file_head = 0
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

    Raises TrainingError for those of another network; see ``load_by_name``.
    """
    try:
        return load_by_name(backbone.module, tensors, backbone.heads, source)
    except TrainingError as error:
        converted = _converted_by_timm(tensors, backbone)
        try:
            return load_by_name(backbone.module, converted, backbone.heads, source)
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


def _build_embedded(name: str, classes: int, pretrained: bool) -> Backbone:
    import timm

    module: Any = timm.create_model(f"tf_{name}", pretrained=False, num_classes=_IMAGENET_CLASSES)
    if pretrained:
        load_in_order(module, read_weights(embedded_weights_file(name)), name)
    module.reset_classifier(classes)
    side, half = EMBEDDED[name], (0.5, 0.5, 0.5)
    spec = PreprocessSpec("shorter_side", side, "bicubic", (side, side), half, half)
    return _backbone(name, module, spec, ("classifier",))


def _build_timm(name: str, classes: int, pretrained: bool) -> Backbone:
    import timm
    from timm.data.config import resolve_model_data_config

    timm_name = name.removeprefix(TIMM_PREFIX)
    _require_in_timm(timm_name, pretrained)
    create = partial(timm.create_model, timm_name, pretrained=pretrained, num_classes=classes)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mapping deprecated model name")
        module: Any = _download(name, create) if pretrained else create()
    config: dict[str, Any] = resolve_model_data_config(module)
    heads = module.default_cfg.get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    if config["input_size"][0] != 3 or not heads or getattr(module, "num_classes", None) != classes:
        raise TrainingError(f"{name} does not classify RGB photos.", "Choose another backbone.")
    return _backbone(name, module, timm_spec(name, config), heads)


def _require_in_timm(name: str, pretrained: bool) -> None:
    """Raise TrainingError for a model, a tag or weights that timm lacks; it would ask the hub."""
    import timm

    if not timm.is_model(name):
        raise TrainingError(
            f"timm has no model {name!r}.", _suggest(name, timm.list_models(), TIMM_PREFIX)
        )
    base, _, tag = name.partition(".")
    if not (tag or pretrained) or base not in timm.list_models():  # timm translates earlier names
        return
    tagged = timm.list_models(f"{base}.*", pretrained=True)
    if tag and name not in tagged:
        names = ", ".join(TIMM_PREFIX + other for other in tagged)
        raise TrainingError(
            f"timm has no weights {tag!r} of {base}.",
            f"There is {names or f'{TIMM_PREFIX}{base}, without weights'}.",
        )
    if pretrained and not tagged:
        raise TrainingError(
            f"timm has no pretrained weights of {base}.",
            "Give a file with --weights FILE, or --weights none.",
        )


def _build_torchvision(name: str, classes: int, pretrained: bool) -> Backbone:
    names = models.list_models(module=models)
    if name not in names:
        import timm

        hint = _suggest(name, [*EMBEDDED, *names])
        if timm.is_model(name):
            hint = f"Did you mean {TIMM_PREFIX}{name}?"
        raise TrainingError(f"There is no backbone {name!r}.", hint)
    published = models.get_model_weights(name).DEFAULT
    module = models.get_model(name, weights=None, **_TORCHVISION_EXTRAS.get(name, {}))
    head = _replace_classifier(module, classes)
    if pretrained:
        # The builder would unpickle the same file; this loader knows weights_only.
        options = {"progress": True, "check_hash": True, "weights_only": True}
        tensors = _download(name, partial(published.get_state_dict, **options))
        load_by_name(module, tensors, (head,), name)
    preset = published.transforms()
    (crop,), (resize,) = preset.crop_size, preset.resize_size
    interpolation = "bicubic" if preset.interpolation is InterpolationMode.BICUBIC else "bilinear"
    spec = _published_spec(
        name, "shorter_side", resize, interpolation, (crop, crop), preset.mean, preset.std
    )
    return _backbone(name, module, spec, (head,))


def _backbone(
    name: str, module: nn.Module, spec: PreprocessSpec, heads: tuple[str, ...]
) -> Backbone:
    return Backbone(name, module.train(), spec, heads, find_blocks(module, heads, input_size(spec)))


def _download(name: str, fetch: Callable[[], T]) -> T:
    """Call a library's own loader of pretrained weights. Raises TrainingError where that fails."""
    try:
        return fetch()
    except (OSError, RuntimeError, ValueError) as error:  # URLError and hub errors are OSErrors
        raise TrainingError(
            f"The pretrained weights of {name} are neither on this machine nor could they be "
            f"fetched: {first_line(error)}",
            "Connect to the internet and run again, or give a file with --weights FILE "
            "(--weights none starts from random weights).",
        ) from error


def _replace_classifier(module: nn.Module, classes: int) -> str:
    """Replace torchvision's layer of 1000 classes, by whatever name → its attribute path."""
    for path, layer in reversed(list(module.named_modules())):
        fresh: nn.Module
        if isinstance(layer, nn.Linear) and layer.out_features == _IMAGENET_CLASSES:
            fresh = nn.Linear(layer.in_features, classes)
        elif isinstance(layer, nn.Conv2d) and layer.out_channels == _IMAGENET_CLASSES:  # SqueezeNet
            fresh = nn.Conv2d(
                layer.in_channels, classes, cast("tuple[int, int]", layer.kernel_size)
            )
        else:
            continue
        parent, _, attribute = path.rpartition(".")
        setattr(module.get_submodule(parent), attribute, fresh)
        if hasattr(module, "num_classes"):
            module.num_classes = classes  # type: ignore[assignment]
        return str(path)
    raise TrainingError(f"No classifier layer was found in {type(module).__name__}.")


def timm_spec(name: str, config: dict[str, Any]) -> PreprocessSpec:
    """timm's evaluation transform: resize to the input's size / crop_pct, then a centre crop."""
    _, height, width = config["input_size"]
    share = min(config["crop_pct"], 1.0)  # above 1, timm pads the photo with black
    full = (math.floor(height / share), math.floor(width / share))
    squash = config["crop_mode"] == "squash" or height != width
    return _published_spec(
        name,
        "squash" if squash else "shorter_side",
        full if squash else full[0],
        "bilinear" if config["interpolation"] == "bilinear" else "bicubic",
        None if squash and full == (height, width) else (height, width),
        config["mean"],
        config["std"],
    )


def _published_spec(
    name: str,
    resize: Any,
    size: Any,
    interpolation: Any,
    crop: tuple[int, int] | None,
    mean: Any,
    std: Any,
) -> PreprocessSpec:
    channel_mean: Any = tuple(map(float, mean))
    channel_std: Any = tuple(map(float, std))
    try:
        return PreprocessSpec(resize, size, interpolation, crop, channel_mean, channel_std)
    except SpecError as error:
        raise TrainingError(
            f"The preprocessing published for {name} can't be used: {error.message}"
        ) from error


def _suggest(name: str, known: list[str], prefix: str = "") -> str:
    import difflib

    close = difflib.get_close_matches(name, known, n=3)
    question = f"Did you mean {', '.join(prefix + match for match in close)}? " if close else ""
    return (
        f"{question}Backbones: {', '.join(EMBEDDED)}, any torchvision classifier, any timm model "
        "as timm/<name>."
    )
