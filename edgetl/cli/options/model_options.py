"""The options shared by the commands that run an exported model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgetl.cli.options.option_types import PRECISIONS

if TYPE_CHECKING:
    from edgetl.runtime.inference.predictor import Predictor

Command = TypeVar("Command", bound=Callable[..., Any])


def _one_or_several(_: click.Context, __: click.Parameter, value: str) -> str | list[str]:
    return value.split(",") if "," in value else value


_OPTIONS = (
    click.option(
        "--providers",
        default="auto",
        show_default=True,
        metavar="NAME[,NAME]",
        callback=_one_or_several,
        help="onnxruntime providers.",
    ),
    click.option(
        "--threads",
        type=click.IntRange(1, 256),
        help="Threads inside one run of the model. "
        "[default: one per core; for many photos 1, with one photo per core]",
    ),
    click.option("--precision", type=PRECISIONS, help="Which of the bundle's models to run."),
    click.option(
        "--max-pixels",
        type=click.IntRange(min=1),
        help="Largest photo to decode, pixels. [default: 100 million]",
    ),
)


def model_options(command: Command) -> Command:
    """Add --providers, --threads, --precision and --max-pixels.

    The command receives them as keyword arguments for ``open_predictor``.
    """
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def given_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those that were given; for the others, the function that takes them has defaults."""
    return {name: value for name, value in options.items() if value is not None}


def open_predictor(model: str, options: Mapping[str, Any], *, many: bool = False) -> Predictor:
    """The predictor that the ``model_options`` describe.

    many  it is used for ``batch``, which runs one photo per core
    """
    from edgetl.runtime.inference.predictor import Predictor

    return Predictor(model, **{**({"threads": 1} if many else {}), **given_options(options)})
