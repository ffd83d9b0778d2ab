"""Whether a file that was named can be one of weights.

Imports nothing heavy: these errors are raised before torch is loaded.
"""

from __future__ import annotations

from pathlib import Path

from edgetl.errors import TrainingError
from edgetl.system.paths import is_there
from edgetl.training.config.run_folder import BEST, LAST


def require_weights_file(path: Path) -> None:
    """Raise TrainingError if ``path``, named by ``weights``, can't be a file of weights."""
    best = path.parent / BEST if (path.parent / BEST).is_file() else None
    hint = f"Name a run's {BEST}." if best is None else f"Name {best}."
    if path.is_dir():
        raise TrainingError(f"{path} is a folder, not a file of weights.", hint)
    if path.is_file() and (path.suffix == ".onnx" or (path.name == LAST and best)):
        raise TrainingError(f"{path} is not a file of weights.", hint)
    if not (is_there(path) and path.is_file()):
        raise TrainingError(
            f"There is no weights file {path}.",
            "--weights takes auto, none, a run's folder, or a file.",
        )
