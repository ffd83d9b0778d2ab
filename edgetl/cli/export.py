"""``edgetl export``: from a trained run to a bundle that runs elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edgetl.training.checkpoint import Trained

DEFAULT_GOLDEN = 8


@click.command()
@click.argument("run", type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder to write the bundle to.")
@click.option(
    "--golden",
    default=str(DEFAULT_GOLDEN),
    show_default=True,
    metavar="N|DIR",
    help="How many validation photos go along for the device's self-test, or a folder of photos to take; 0: none.",
)
@click.option("--opset", type=int, help="ONNX opset version; by default the lowest that the network's operators allow.")
@click.option(
    "--format",
    "formats",
    multiple=True,
    type=click.Choice(["onnx", "torchscript"]),
    default=("onnx", "torchscript"),
    show_default=True,
    help="What to write; may be given more than once.",
)
def command(run: Path, output: Path, golden: str, opset: int | None, formats: tuple[str, ...]) -> None:
    """Write the model trained in RUN as a bundle: preprocessing, network, labels and golden photos in one folder.

    Every exported file must answer as the trained network before anything is put in place; an earlier bundle is
    replaced at once.

    \b
    Example:
      edgetl export runs/pets -o exported/pets
    """
    from edgetl.export.bundle_writer import export_bundle
    from edgetl.training import checkpoint

    trained = checkpoint.load(run)
    photos = _golden_photos(golden, trained)
    source = run / checkpoint.BEST if run.is_dir() else run
    written = export_bundle(
        trained.network,
        trained.card,
        output,
        golden=photos,
        opset=opset,
        formats=formats,
        checkpoint=source,
    )
    click.echo("\n".join(_lines(written, json.loads((written / "manifest.json").read_bytes()))))


def _golden_photos(golden: str, trained: Trained) -> list[Path]:
    """The photos that ``--golden`` asks for."""
    from edgetl.runtime.sources import find_images

    if not golden.isdecimal():
        folder = Path(golden)
        photos = find_images(folder) if folder.is_dir() else []
        if not photos:
            raise click.UsageError(f"--golden {golden}: give a number, or a folder with photos in it.")
        return photos
    return _validation_photos(trained.settings, int(golden)) if int(golden) else []


def _validation_photos(settings: Mapping[str, Any], count: int) -> list[Path]:
    """``count`` validation photos of the data that the run was trained on, one class after the other in turn."""
    from edgetl.errors import DataError, ExportError
    from edgetl.training.dataset import scan

    hint = "Give other photos with --golden DIR, or leave them out with --golden 0."
    try:
        folders = scan(settings["data"], val_fraction=settings["val_fraction"])
    except KeyError as error:
        raise ExportError("The run does not say what it was trained on, so there are no golden photos.", hint) from error
    except DataError as error:
        raise ExportError(f"The golden photos come from the run's data, which can't be read: {error.message}", hint) from error
    by_class: list[list[Path]] = [[] for _ in folders.classes]
    for sample in folders.val:
        by_class[sample.label].append(sample.path)
    turns = sorted((turn, label, path) for label, paths in enumerate(by_class) for turn, path in enumerate(paths))
    return [path for _, _, path in turns[:count]]


def _lines(bundle: Path, manifest: Mapping[str, Any]) -> Sequence[str]:
    models = [name for name in manifest["files"] if not name.startswith("golden/")]
    return [
        *(f"{bundle / name}  {manifest['files'][name]['bytes'] / 1e6:.2f} MB" for name in models),
        f"{bundle / 'golden'}  {len(manifest['golden'])} photos",
        *(
            f"{name} answers as the trained network on {figures['photos']} pictures: resized pixels equal, "
            f"probabilities within {figures['probabilities']:.1e}"
            for name, figures in manifest["verification"].items()
        ),
        f"Next: edgetl check {bundle} --images DIR",
    ]
