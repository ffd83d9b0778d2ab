"""Every option of a training run: its default, its values, its help.

The options of the command ``edgetl train`` are made from these.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args, get_origin, get_type_hints

from edgetl.data.layout import DEFAULT_VAL_FRACTION
from edgetl.data.photo_source import PhotoSource
from edgetl.errors import TrainingError
from edgetl.runtime.images.photo_list import COLUMNS_HELP, ROOT_HELP
from edgetl.runtime.images.stored_path import absolute_name, as_place
from edgetl.training.config.candidate_names import parse_candidates
from edgetl.training.config.option import Option, flag
from edgetl.training.config.quantities import parse_bytes, parse_milliseconds

# The optimizer that fits the head to frozen features as one convex problem, without epochs.
SOLVER = "solver"
# The backbone until --budget has chosen one.
UNDECIDED = "undecided"
# Sides of photos: a smaller one shows nothing, and a larger one would not fit into memory.
_LEAST_SIDE, _MOST_SIDE = 16, 2048

# ``needs`` of options for runs with epochs, and for runs that train more than the head.
_LOOP = ("optimizer", ("sgd", "adam", "adamw"))
_BODY = ("strategy", ("last-blocks", "full"))


def _group(heading: str, needs: tuple[str, tuple[str, ...]] | None = None) -> Callable[..., Any]:
    """What makes the fields under one heading of the help; ``needs`` unless they say another."""

    def option(default: Any, text: str, choices: tuple[str, ...] = (), **limits: Any) -> Any:
        found = Option(heading, text, choices, **{"needs": needs, **limits})
        return field(default=default, metadata={"option": found})

    return option


_model, _data, _recipe = _group("Model"), _group("Data"), _group("Recipe")
_photos, _machine = _group("Photos"), _group("Machine")
# Of runs with epochs.
_epochs, _views = _group("Recipe", _LOOP), _group("Photos", _LOOP)
_steps, _run = _group("Machine", _LOOP), _group("Run", _LOOP)


@dataclass(frozen=True)
class TrainSettings:
    """The settings of one training run; ``recipes.resolve`` makes them from what a user gave.

    data  the photos' folder or list. Every other field is described by its ``Option``.

    ``data`` and ``root`` become absolute.

    Raises TrainingError for a value that can't be used.
    """

    data: str

    backbone: str = _model(
        "efficientnet_lite0",
        "efficientnet_lite0, 1 or 2, a torchvision classifier, or timm/NAME.",
        common=True,
    )
    weights: str = _model(
        "auto", "Pretrained weights: auto, none, a run's folder, or a .safetensors or .pth file."
    )
    strategy: str = _model(
        "auto",
        "What is trained; auto: full on a GPU, else see --max-time.",
        ("auto", "features", "last-blocks", "full"),
        common=True,
    )
    blocks: int = _model(
        3, "How many blocks last-blocks trains.", low=1, needs=("strategy", ("last-blocks",))
    )

    budget: str = _model(
        "", "Choose the model that takes at most this time for a photo, such as 15ms."
    )
    max_size: str = _model("", "Choose the model whose file is at most this large, such as 5MB.")
    profile: str = _model(
        "",
        "Figures of the device, by edgetl bench --profile; without them, this machine is measured.",
    )
    candidates: str = _model(
        "", "Choose the model among these: NAME or NAME@SIZE, with commas between them."
    )

    val_fraction: float = _data(
        DEFAULT_VAL_FRACTION,
        "Share of the photos to validate on, where there is no val/ folder.",
        above=0,
        high=0.9,
        common=True,
    )
    columns: str = _data("", COLUMNS_HELP)
    root: str = _data("", ROOT_HELP)
    class_weights: bool = _data(False, "Give rare classes more weight in the loss.")
    balanced: bool = _data(False, "Sample the classes equally often.", needs=_LOOP)

    recipe: str = _recipe(
        "default", "Values of the options that are not given.", ("default", "classic")
    )
    optimizer: str = _recipe(
        "adamw",
        "solver: fit the head without epochs, as with --strategy features.",
        (SOLVER, *_LOOP[1]),
    )
    warm_head: bool = _epochs(True, "Start from a head fitted by solver.")
    refit: bool = _recipe(
        True,
        "After it is judged, fit the head once more, to the validation photos as well.",
        needs=("optimizer", (SOLVER,)),
    )
    epochs: int = _epochs(12, "How often each photo is seen.", low=1, common=True)
    batch_size: int = _epochs(64, "Photos in a batch, over all processes.", low=1)
    accumulate: int = _epochs(1, "Batches whose gradients make one step.", low=1)
    lr: float = _epochs(
        5e-4, "Learning rate of the head, the largest one; with sgd 0.002.", above=0, high=1e6
    )
    layer_decay: float = _recipe(
        0.15,
        "Learning rate of the lowest block, relative to the head's; in between, by depth.",
        above=0,
        high=1,
        needs=_BODY,
    )
    momentum: float = _recipe(
        0.9, "Momentum of sgd.", low=0, high=0.9999, needs=("optimizer", ("sgd",))
    )
    weight_decay: float = _epochs(
        0.05, "Weight decay, of weight matrices only; with sgd 0.0001, with adam 0.", low=0
    )
    scheduler: str = _epochs(
        "cosine", "How the learning rate falls.", ("none", "step", "cosine", "one-cycle", "plateau")
    )
    step_size: int = _recipe(
        7, "Epochs between two drops of step.", low=1, needs=("scheduler", ("step",))
    )
    gamma: float = _recipe(
        0.1,
        "Factor of each drop of step and plateau.",
        above=0,
        high=1,
        needs=("scheduler", ("step", "plateau")),
    )
    patience: int = _recipe(
        2,
        "Epochs without improvement before plateau drops.",
        low=0,
        needs=("scheduler", ("plateau",)),
    )
    warmup: float = _epochs(
        1.0, "Epochs in which the learning rate rises first, half of the run at most.", low=0
    )
    ema: float = _epochs(
        0.99, "Average the weights with this decay per step; 0: off.", low=0, high=0.99999
    )
    label_smoothing: float = _epochs(
        0.1, "Share of the target spread over all classes.", low=0, high=0.9
    )
    norm_statistics: bool = _recipe(
        False,
        "Update batch-norm statistics in training; with several processes, on GPUs only.",
        needs=_BODY,
    )
    clip: float = _epochs(0.0, "Clip the norm of the gradient to this; 0: off.", low=0)
    early_stop: int = _epochs(
        0, "Stop after this many epochs without improvement; 0: never.", low=0
    )
    max_time: float = _epochs(
        0.0, "Minutes for the run, on a CPU for last blocks, too; 0: no limit.", low=0, common=True
    )

    resize: str = _photos(
        "auto",
        "published: as the weights want it; squash: to a square; auto: what suits the photos.",
        ("auto", "published", "squash"),
    )
    image_size: int = _photos(
        0,
        "Side of the network's input, or of a square of its area; 0: as published.",
        least=_LEAST_SIDE,
        high=_MOST_SIDE,
        common=True,
    )
    flip: bool = _views(True, "Mirror half of the training photos.")
    rotation: float = _views(
        5.0, "Turn training photos by up to ± this many degrees.", low=0, high=180
    )
    scale: tuple[float, float] = _views(
        (0.7, 1.0), "Smallest and largest share of a training photo's area.", low=0.001, high=1
    )
    ratio: tuple[float, float] = _views(
        (0.75, 4 / 3), "Smallest and largest change of a training photo's aspect.", low=0.1, high=10
    )
    colour: float = _views(
        0.1, "Vary brightness, contrast, saturation by up to ± this.", low=0, high=1
    )
    # A smaller alpha of a Beta distribution blends nothing, and torch can't draw from it.
    mixup: float = _views(
        0.0, "Blend pairs of photos: alpha of the Beta distribution; 0: off.", least=1e-3
    )
    cutmix: float = _views(0.0, "Paste parts of other photos: alpha; 0: off.", least=1e-3)

    device: str = _machine("auto", "auto, cpu, cuda, or cuda:N.", common=True)
    precision: str = _steps(
        "auto",
        "auto: bf16 on a GPU that has it, else float32.",
        ("auto", "float32", "bf16", "fp16"),
    )
    compile: bool = _steps(False, "Compile the network: minutes at the start, faster steps.")
    cache: str = _steps(
        "auto",
        "Keep decoded training photos; off: decode in every epoch.",
        ("auto", "memory", "disk", "off"),
    )
    feature_cache: str = _machine(
        "auto",
        "Where a frozen backbone's features are kept for later runs: auto, off, or a folder.",
    )
    workers: int = _machine(
        0, "Decoding threads or processes; 0: one for each core.", low=0, high=256
    )
    seed: int = _machine(0, "Seed of everything random.", low=0, high=2**63 - 1)

    tensorboard: bool = _run(False, "Write TensorBoard events.")
    save_every: float = _run(
        60.0, "Seconds between two saves of the state that --resume needs.", above=0
    )

    def __post_init__(self) -> None:
        kinds, initial = field_types(), defaults()
        for name, option in OPTIONS.items():
            parts = len(initial[name]) if isinstance(initial[name], tuple) else 1
            option.check(name, getattr(self, name), kinds[name], parts)
        parse_milliseconds(flag("budget"), self.budget)
        parse_bytes(flag("max_size"), self.max_size)
        parse_candidates(self.candidates)
        for name in ("data", "root"):
            if place := getattr(self, name):
                object.__setattr__(self, name, absolute_name(place))

    @property
    def source(self) -> PhotoSource:
        """Where the photos are."""
        return PhotoSource(as_place(self.data), self.columns, self.root)

    @property
    def has_budget(self) -> bool:
        """Whether the backbone is, or was, chosen by what the device does."""
        return bool(self.budget or self.max_size)

    def has_effect(self, name: str) -> bool:
        """Whether field ``name`` changes anything, given the other fields."""
        if name == "feature_cache":
            return self.optimizer == SOLVER or self.warm_head or self.has_budget
        if name == "max_time" and self.strategy == "auto":  # see ``recipes.resolve``
            return True
        needs = OPTIONS[name].needs
        return needs is None or (getattr(self, needs[0]) in needs[1] and self.has_effect(needs[0]))

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; ``from_dict`` reads it back to equal settings."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainSettings:
        """Read what ``to_dict`` returned.

        Raises TrainingError for a missing, unknown or impossible value.
        """
        names = {item.name for item in dataclasses.fields(cls)}
        if set(values) != names:
            raise TrainingError(
                f"Settings of another version: {', '.join(sorted(names ^ set(values)))} differ.",
                "Start again with --overwrite.",
            )
        pairs = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return cls(**{**values, **pairs})


OPTIONS: Mapping[str, Option] = types.MappingProxyType(
    {
        item.name: item.metadata["option"]
        for item in dataclasses.fields(TrainSettings)
        if "option" in item.metadata
    }
)
"""Field name → its option, in the order of the help."""


def field_types() -> dict[str, type]:
    """Field name → the type of its value; for a pair, that of each part."""
    hints = get_type_hints(TrainSettings)
    return {
        name: get_args(hint)[0] if get_origin(hint) is tuple else hint
        for name, hint in hints.items()
    }


def defaults() -> dict[str, Any]:
    """Field name → default, of every field that has an option."""
    return {name: TrainSettings.__dataclass_fields__[name].default for name in OPTIONS}
