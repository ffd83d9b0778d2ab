"""Backbones by name, of three libraries, each with a new head and its published preprocessing."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from torch import Tensor, nn

from edgetl.errors import SpecError, TrainingError, first_line
from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.training.models.backbone import TIMM_PREFIX, Backbone
from edgetl.training.models.blocks import find_blocks
from edgetl.training.models.pretrained_weights import (
    load_embedded,
    load_weights,
    load_weights_file,
)
from edgetl.training.torch_env.vision_libraries import InterpolationMode, models

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
    if name.startswith(TIMM_PREFIX):
        backbone = _build_timm(name, classes, pretrained)
    elif name in EMBEDDED:
        backbone = _build_embedded(name, classes)
        if pretrained:
            load_embedded(backbone)
    else:
        backbone = _build_torchvision(name, classes)
        if pretrained:
            load_weights(backbone, _published_by_torchvision(name), name)
    if weights not in ("auto", "none"):
        backbone = load_weights_file(backbone, Path(weights), labels)
    return backbone


def _build_embedded(name: str, classes: int) -> Backbone:
    import timm

    module: Any = timm.create_model(f"tf_{name}", pretrained=False, num_classes=_IMAGENET_CLASSES)
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


def _build_torchvision(name: str, classes: int) -> Backbone:
    names = models.list_models(module=models)
    if name not in names:
        import timm

        hint = _suggest(name, [*EMBEDDED, *names])
        if timm.is_model(name):
            hint = f"Did you mean {TIMM_PREFIX}{name}?"
        raise TrainingError(f"There is no backbone {name!r}.", hint)
    module = models.get_model(name, weights=None, **_TORCHVISION_EXTRAS.get(name, {}))
    head = _replace_classifier(module, classes)
    preset = models.get_model_weights(name).DEFAULT.transforms()
    (crop,), (resize,) = preset.crop_size, preset.resize_size
    interpolation = "bicubic" if preset.interpolation is InterpolationMode.BICUBIC else "bilinear"
    spec = _published_spec(
        name, "shorter_side", resize, interpolation, (crop, crop), preset.mean, preset.std
    )
    return _backbone(name, module, spec, (head,))


def _backbone(
    name: str, module: nn.Module, spec: PreprocessSpec, heads: tuple[str, ...]
) -> Backbone:
    return Backbone(name, module.train(), spec, heads, find_blocks(module, heads, spec.input_size))


def _published_by_torchvision(name: str) -> Mapping[str, Tensor]:
    """Name → tensor. The network's builder would unpickle the file; this loader does not."""
    published = models.get_model_weights(name).DEFAULT
    options = {"progress": True, "check_hash": True, "weights_only": True}
    tensors: Mapping[str, Tensor] = _download(name, partial(published.get_state_dict, **options))
    return tensors


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
