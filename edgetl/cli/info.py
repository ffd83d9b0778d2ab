"""``edgetl info``: what is in a bundle or a lone model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import click

from edgetl.cli.printable import counted, json_text, printable

if TYPE_CHECKING:
    from edgetl.errors import BundleError
    from edgetl.runtime.bundle.model_card import ModelCard

_METRICS = {
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "top5_accuracy": "top-5 accuracy",
    "loss": "loss",
    "calibration_error": "calibration error",
    "calibration_error_before": "before the temperature",
    "epoch": "epoch",
    "midway": "half-way to it",
}
_JUDGED = {
    "accuracy": "accuracy",
    "fp32_accuracy": "of fp32",
    "agreement": "same label",
    "drop": "points lost",
}
_DATA = {"train": "training photos", "val": "validation photos", "fingerprint": "fingerprint"}
_PLAIN_NUMBERS = frozenset(
    {"loss", "epoch", "drop", "photos", "train", "val"}
)  # all others are shares, 0..1
_UNSAID: Mapping[str, tuple[int, ...]] = {
    "epoch": (0,),
    "midway": (False,),
}  # no epoch's weights were kept; an epoch's
_CHECKSUM = {True: "fits", False: "none"}  # damage is an error
_FINGERPRINT_DIGITS = 12  # of 64: enough to tell two data sets apart by eye


@click.command(short_help="Show what a model holds, and whether its files are whole.")
@click.argument("model", type=click.Path(exists=True))
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON to standard output instead of text."
)
def command(model: str, as_json: bool) -> None:
    """Show what MODEL holds: labels, preprocessing, metrics, versions, sizes. Every file's checksum is checked.

    \b
    Example:
      edgetl info exported/pets
    """
    from edgetl.runtime.bundle.bundle_folder import Bundle, open_to_read
    from edgetl.runtime.bundle.embedded_checksum import verify_checksum
    from edgetl.runtime.inference.predictor import Predictor

    checksum = True
    if Path(model).is_dir():
        bundle = Bundle.open(model)
        if damage := bundle.damage():
            raise _Damaged(damage)
        card, created, models = (
            bundle.card,
            bundle.manifest["created"],
            dict(bundle.manifest["models"]),
        )
        precisions = _judgements(bundle.manifest)
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


class _Damaged(click.ClickException):
    """Every file that is missing or not as it was written, then what to do."""

    def __init__(self, damage: Iterable[BundleError]) -> None:
        found = list(damage)
        hints = dict.fromkeys(error.hint for error in found if error.hint)
        super().__init__("\n".join([*(error.message for error in found), *hints]))


def _judgements(manifest: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What the smaller precisions were measured to cost, by precision."""
    found = manifest.get("precisions")
    return (
        {name: value for name, value in found.items() if isinstance(value, dict)}
        if isinstance(found, dict)
        else {}
    )


def _lines(
    card: ModelCard,
    created: str | None,
    precisions: Mapping[str, Any],
    files: dict[str, int],
    checksum: bool,
) -> list[str]:
    shown = ", ".join(json.dumps(label, ensure_ascii=False) for label in card.labels[:20])
    more = f", … ({len(card.labels) - 20} more)" if len(card.labels) > 20 else ""
    return [
        *_row("backbone", card.backbone),
        *_row("labels", f"{len(card.labels)}: {shown}{more}"),
        *_row("input", str(card.spec)),
        *_row("temperature", f"{card.temperature:.4g}"),
        *_row("accuracy", _accuracy(card.metrics)),
        *_row("metrics", _pairs(card.metrics, _METRICS)),
        *(
            line
            for name, judged in sorted(precisions.items())
            for line in _row(name, _judged(judged))
        ),
        *_row("data", _pairs(card.data, _DATA)),
        *_row(
            "versions",
            ", ".join(f"{name} {version}" for name, version in sorted(card.versions.items())),
        ),
        *_row("exported", created),
        *(
            line
            for name, size in _grouped(files)
            for line in _row("file", f"{name}  {_megabytes(size)}")
        ),
        *_row("checksum", _CHECKSUM[checksum]),
    ]


def _accuracy(metrics: Mapping[str, Any]) -> str | None:
    """On the validation photos, with its interval where that is known."""
    accuracy, interval, photos = (
        metrics.get("accuracy"),
        metrics.get("accuracy_interval"),
        metrics.get("photos"),
    )
    if not _is_number(accuracy):
        return None
    between = ""
    if isinstance(interval, list) and len(interval) == 2 and all(map(_is_number, interval)):
        between = f" ({interval[0]:.1%} to {interval[1]:.1%})"
    return f"{accuracy:.2%}{between}" + (
        f" on {counted(photos, 'validation photo')}" if _is_number(photos) else ""
    )


def _judged(judged: Mapping[str, Any]) -> str:
    floats = judged.get("float_layers")
    return _pairs(judged, _JUDGED) + (
        f", {len(floats)} layers in float" if isinstance(floats, list) and floats else ""
    )


def _grouped(files: dict[str, int]) -> list[tuple[str, int]]:
    """Files by name, those of a folder as one."""
    golden = [size for name, size in files.items() if name.startswith("golden/")]
    alone = [(name, size) for name, size in files.items() if not name.startswith("golden/")]
    return [
        *alone,
        *([(f"golden/  {counted(len(golden), 'photo')}", sum(golden))] if golden else []),
    ]


def _row(name: str, value: str | None) -> list[str]:
    return [f"{name:<12} {value}"] if value else []


def _pairs(values: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Those of ``values`` that have a name here, by that name; the others are left to --json."""
    return ", ".join(
        shown if values[name] is True else f"{shown} {_value(name, values[name])}"
        for name, shown in names.items()
        if values.get(name) not in (None, *_UNSAID.get(name, ()))
    )


def _value(name: str, value: Any) -> str:
    if not _is_number(value):
        return str(value)[:_FINGERPRINT_DIGITS] if name == "fingerprint" else str(value)
    if name not in _PLAIN_NUMBERS:
        return f"{value:.2%}"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _is_number(value: object) -> TypeGuard[int | float]:
    """Nothing but the checksum is known of what a bundle's metrics hold."""
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and -1e300 < value < 1e300
    )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB" if size >= 10_000 else f"{size} bytes"
