"""``python -m edgetl.demo``: the whole path on real photos, in about two minutes on two cores.

It runs the commands that a user would type, and shows them. Nothing is downloaded: the photos are
scikit-learn's handwritten digits.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from edgetl.errors import MissingDependencyError
from edgetl.system.missing_package import explain_missing_packages

_VAL_EVERY = 5  # every fifth photo of a digit is for validation
_SCALE = 8  # 8×8 pixels become 64×64, so that people can see them, too
_WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from edgetl.cli.main import main; main()"


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default="demo")
@click.option(
    "--device-python",
    metavar="PYTHON",
    help="Python of an environment without torch, for the device's part. "
    "[default: this one, with torch blocked]",
)
def main(folder: Path, device_python: str | None) -> None:
    """Train, export, check and predict on 1,797 handwritten digits, all in FOLDER.

    \b
    Example:
      python -m edgetl.demo
    """
    started = time.monotonic()
    workstation = [sys.executable, "-m", "edgetl"]
    device = [sys.executable, "-c", _WITHOUT_TORCH]
    if device_python is not None:
        device = [device_python, "-m", "edgetl"]
    digits, run, bundle = folder / "digits", folder / "runs" / "digits", folder / "exported/digits"
    photos, html = digits / "val", folder / "parity.html"
    reports = ["--json", folder / "parity.json", "--junit", folder / "parity.xml", "--html", html]

    _step("Handwritten digits as PNG files, one folder per class")
    try:
        click.echo(f"{write_digits(digits):,} photos in {digits}")
    except MissingDependencyError as error:
        raise click.ClickException(str(error)) from error
    _step("Train")
    _run(workstation, "train", digits, "-o", run, "--overwrite")
    _step("Export")
    _run(workstation, "export", run, "-o", bundle)
    _step("Check every runtime against the trained network, on photos it never saw")
    _run(workstation, "check", bundle, "--images", photos, *reports)
    _step("On the device, without torch")
    _run(device, "selftest", bundle)
    _run(device, "predict", bundle, *sorted(photos.glob("*/0.png")), "--top", 2)
    _run(device, "info", bundle)
    _step(f"Done in {time.monotonic() - started:.0f} s")
    click.echo(f"Training report: {run / 'report.html'}\nParity report: {html}")


@explain_missing_packages("The demo")
def write_digits(folder: Path) -> int:
    """Write ``folder/train/DIGIT/N.png`` and ``folder/val/DIGIT/N.png``; returns how many photos.

    Raises MissingDependencyError without scikit-learn.
    """
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels = (data.images * (255 / 16)).round().astype(np.uint8)
    seen = dict.fromkeys(range(10), 0)
    for image, label in zip(pixels, data.target.tolist(), strict=True):
        number = seen[label]
        seen[label] += 1
        part = "train" if number % _VAL_EVERY else "val"
        path = folder / part / str(label) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.kron(image, np.ones((_SCALE, _SCALE), np.uint8))).save(path)
    return len(pixels)


def _step(title: str) -> None:
    click.secho(f"\n== {title}", bold=True)  # ASCII, which every console can show


def _run(edgetl: Sequence[str], *arguments: object) -> None:
    """Show an ``edgetl`` command and run it; end with its exit code if it fails."""
    words = list(map(str, arguments))
    click.echo(f"$ {subprocess.list2cmdline(['edgetl', *words])}")
    done = subprocess.run([*edgetl, *words])
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
