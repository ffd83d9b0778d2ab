"""``edgetl info``: what is in a bundle or a lone model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import click

from edgetl.cli import CommandFailed
from edgetl.cli.options.output_options import json_option
from edgetl.cli.process import require_stdout
from edgetl.cli.terminal.figures import noticed_unknown
from edgetl.cli.terminal.terminal_text import json_text
from edgetl.system.message_text import counted, printable

if TYPE_CHECKING:
    from edgetl.runtime.bundle.model_card import ModelCard

_METRICS = {
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "top5_accuracy": "top-5 accuracy",
    "loss": "loss",
    "calibration_error": "calibration error",
    "calibration_error_before": "before the temperature",
    "epoch": "weights of epoch",
    "midway": "averaged with the first ones",
    "refit": "all before the final fit, which also saw the validation photos",
}
_PRECISION_METRICS = {
    "accuracy": "accuracy",
    "fp32_accuracy": "of fp32",
    "agreement": "same label",
    "drop": "points lost",
}
_DATA = {"train": "training photos", "val": "validation photos", "fingerprint": "fingerprint"}
# All other numbers are shares, 0..1.
_PLAIN_NUMBERS = frozenset({"loss", "epoch", "drop", "photos", "train", "val"})
# Not shown: epoch 0 (the weights are of no epoch), and weights that are not interpolated.
_HIDDEN: Mapping[str, tuple[int, ...]] = {"epoch": (0,), "midway": (False,), "refit": (False,)}
_CHECKSUM = {True: "fits", False: "none"}  # a checksum that does not match is an error
_FINGERPRINT_DIGITS = 12  # of 64: enough to tell two data sets apart by eye


@click.command(short_help="Show what a model holds, and whether its files are whole.")
@click.argument("model", type=click.Path(exists=True))
@json_option
def command(model: str, as_json: bool) -> None:
    """Show what MODEL holds: labels, preprocessing, metrics, versions, sizes.

    The checksum of every file is verified.

    \b
    Example:
      edgetl info exported/pets
    """
    from edgetl.runtime.bundle.bundle_folder import Bundle, open_to_read
    from edgetl.runtime.bundle.embedded_checksum import verify_checksum
    from edgetl.runtime.inference.predictor import Predictor

    require_stdout()
    checksum = True
    if Path(model).is_dir():
        bundle = Bundle.open(model)
        if damage := bundle.damage():
            hints = dict.fromkeys(error.hint for error in damage if error.hint)
            raise CommandFailed("\n".join([*(error.message for error in damage), *hints]))
        card, created = bundle.card, bundle.manifest["created"]
        models, precisions = dict(bundle.manifest["models"]), bundle.manifest.get("precisions")
        # Optional, so ``Bundle`` did not check what it holds.
        precisions = precisions if isinstance(precisions, dict) else {}
        precisions = {name: cost for name, cost in precisions.items() if isinstance(cost, dict)}
        files = {name: entry["bytes"] for name, entry in sorted(bundle.manifest["files"].items())}
    else:
        card, created, models, precisions = Predictor(model).card, None, {}, {}
        files = {Path(model).name: Path(model).stat().st_size}
        with open_to_read(Path(model)) as file:
            checksum = verify_checksum(Path(model), file.read())
    if as_json:
        values = {
            "card": card.to_dict(),
            "created": created,
            "models": models,
            "precisions": precisions,
            "files": files,
            "checksum": _CHECKSUM[checksum],
        }
        click.echo(json_text(values, indent=1))
    else:
        click.echo("\n".join(map(printable, _lines(card, created, precisions, files, checksum))))


def _lines(
    card: ModelCard,
    created: str | None,
    precisions: Mapping[str, Any],
    files: dict[str, int],
    checksum: bool,
) -> list[str]:
    shown = ", ".join(json.dumps(label, ensure_ascii=False) for label in card.labels[:20])
    more = f", … ({len(card.labels) - 20} more)" if len(card.labels) > 20 else ""
    versions = ", ".join(f"{name} {version}" for name, version in sorted(card.versions.items()))
    sizes = {name: size for name, size in files.items() if "/" not in name}
    for folder, kind in (("golden/", "photo"), ("web/", "file")):
        if inside := [size for name, size in files.items() if name.startswith(folder)]:
            sizes[f"{folder}  {counted(len(inside), kind)}"] = sum(inside)
    rows = [
        ("backbone", card.backbone),
        ("labels", f"{len(card.labels)}: {shown}{more}"),
        ("input", str(card.spec)),
        ("temperature", f"{card.temperature:.4g}"),
        ("accuracy", _accuracy(card.metrics)),
        ("metrics", _pairs(card.metrics, _METRICS)),
        *((name, _precision(cost)) for name, cost in sorted(precisions.items())),
        *(("unknown", line) for line in _unknown(card)),
        ("maps", "where it looked, for edgetl explain" if card.biases else None),
        *_promise_rows(card),
        ("data", _pairs(card.data, _DATA)),
        ("versions", versions),
        ("exported", created),
        *(("file", f"{name}  {_megabytes(size)}") for name, size in sizes.items()),
        ("checksum", _CHECKSUM[checksum]),
    ]
    return [f"{name:<12} {value}" for name, value in rows if value]


def _promise_rows(card: ModelCard) -> Iterator[tuple[str, str]]:
    """What the model states about its answers, and from when on they are sure."""
    if card.promises is None:
        return
    for share in card.promises.statement:
        yield "stated", f"{share.name}: {share.text}"
    for entry in card.promises.sure_answers:
        yield "sure", entry.text
    yield "stated for", card.promises.basis


def _accuracy(metrics: Mapping[str, Any]) -> str | None:
    """Accuracy on the validation photos, with its confidence interval if there is one."""
    names = ("accuracy", "accuracy_interval", "photos")
    accuracy, interval, photos = (metrics.get(name) for name in names)
    if not _is_number(accuracy):
        return None
    text = f"{accuracy:.2%}"
    if isinstance(interval, list) and len(interval) == 2 and all(map(_is_number, interval)):
        text += f" ({interval[0]:.1%} to {interval[1]:.1%})"
    return text + (f" on {counted(photos, 'validation photo')}" if _is_number(photos) else "")


def _unknown(card: ModelCard) -> Iterator[str]:
    """From which score on a photo counts as unknown, and how well that was measured to work."""
    if (limits := card.unknown) is None:
        return
    known = f"{100 * limits.keep_known:.4g}% of known photos"
    photos = limits.figures.get("photos")
    by = f", by {counted(photos, 'held-out photo')}" if _is_number(photos) else ""
    yield f"a score above {limits.threshold:.3g}, to keep {known}{by}"
    yield from noticed_unknown(limits.figures)


def _precision(cost: Mapping[str, Any]) -> str:
    """What a smaller precision was measured to cost."""
    text, layers = _pairs(cost, _PRECISION_METRICS), cost.get("float_layers")
    return text + (
        f", {len(layers)} layers in float" if layers and isinstance(layers, list) else ""
    )


def _pairs(values: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """The ``values`` that ``names`` has a text for; --json shows the others."""
    return ", ".join(
        shown if values[name] is True else f"{shown} {_value(name, values[name])}"
        for name, shown in names.items()
        if values.get(name) not in (None, *_HIDDEN.get(name, ()))
    )


def _value(name: str, value: Any) -> str:
    if not _is_number(value):
        return str(value)[:_FINGERPRINT_DIGITS] if name == "fingerprint" else str(value)
    if name not in _PLAIN_NUMBERS:
        return f"{value:.2%}"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _is_number(value: object) -> TypeGuard[int | float]:
    """Whether it is a finite number; a bundle's metrics may hold anything."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return -1e300 < value < 1e300


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB" if size >= 10_000 else f"{size} bytes"
