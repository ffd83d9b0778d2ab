"""``edgetl info``: what is in a bundle or a lone model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edgetl.runtime.card import ModelCard


@click.command()
@click.argument("model", type=click.Path(exists=True))
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def command(model: str, as_json: bool) -> None:
    """Show what MODEL holds: labels, preprocessing, metrics, versions, sizes. Every file's checksum is checked.

    \b
    Example:
      edgetl info exported/pets
    """
    from edgetl.runtime.bundle import Bundle
    from edgetl.runtime.predictor import Predictor

    if Path(model).is_dir():
        bundle = Bundle.open(model)
        for damage in bundle.damage():
            raise damage
        card, created, models = bundle.card, bundle.manifest["created"], dict(bundle.manifest["models"])
        files = {name: entry["bytes"] for name, entry in sorted(bundle.manifest["files"].items())}
    else:
        card, created, models = Predictor(model).card, None, {}
        files = {Path(model).name: Path(model).stat().st_size}
    if as_json:
        values = {"card": card.to_dict(), "created": created, "models": models, "files": files}
        click.echo(json.dumps(values, ensure_ascii=False, indent=1))
    else:
        click.echo("\n".join(_lines(card, created, files)))


def _lines(card: ModelCard, created: str | None, files: dict[str, int]) -> list[str]:
    shown = ", ".join(json.dumps(label, ensure_ascii=False) for label in card.labels[:20])
    more = f", … ({len(card.labels) - 20} more)" if len(card.labels) > 20 else ""
    return [
        *_row("backbone", card.backbone),
        *_row("labels", f"{len(card.labels)}: {shown}{more}"),
        *_row("input", str(card.spec)),
        *_row("temperature", f"{card.temperature:.4g}"),
        *_row("metrics", _pairs(card.metrics)),
        *_row("data", _pairs(card.data)),
        *_row("versions", _pairs(card.versions)),
        *_row("exported", created),
        *(line for name, size in _grouped(files) for line in _row("file", f"{name}  {_megabytes(size)}")),
    ]


def _grouped(files: dict[str, int]) -> list[tuple[str, int]]:
    """Files by name, those of a folder as one."""
    golden = [size for name, size in files.items() if name.startswith("golden/")]
    alone = [(name, size) for name, size in files.items() if not name.startswith("golden/")]
    return [*alone, *([(f"golden/  {len(golden)} photos", sum(golden))] if golden else [])]


def _row(name: str, value: str | None) -> list[str]:
    return [f"{name:<12} {value}"] if value else []


def _pairs(values: Any) -> str:
    return ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in values.items()
        if isinstance(value, (str, int, float))
    )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB" if size >= 10_000 else f"{size} bytes"
