"""Every error that edgetl raises on purpose, but for an argument that no call can mean (ValueError, TypeError).

    EdgetlError                 anything below; has .message and .hint
    ├── SpecError               a preprocessing description that can't be used
    ├── ImageError              one photo that can't be read; has .source
    ├── PredictionError         the model failed on a photo that could be read; has .source
    ├── DataError               a data folder that can't be trained on
    ├── TrainingError           a training run that can't start or go on
    ├── CheckpointError         a run folder or checkpoint that can't be read or written
    ├── ExportError             a model that can't be exported
    ├── BundleError             a bundle or model file that can't be trusted or read; has .path
    ├── ParityError             a comparison that could not be made (a mismatch is a result, not an error)
    ├── ResultsError            a file of results that can't be written or continued
    ├── RuntimeUnavailableError a device or an execution provider that was asked for and is not here
    └── MissingDependencyError  an optional package that is needed and not installed

Each message says what was wrong and where; ``hint`` says what to do next.
"""

from __future__ import annotations

from pathlib import Path


class EdgetlError(Exception):
    """Base class. ``str(error)`` is the message followed by the hint, if there is one."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


def first_line(error: BaseException) -> str:
    """What a library's error says, in one line; some say nothing but their kind, or go on for pages."""
    message = error.message if isinstance(error, EdgetlError) else str(error)
    return (message.strip().splitlines() or [type(error).__name__])[0]


class SpecError(EdgetlError):
    """A preprocessing description with a missing, unknown or impossible value."""


class ImageError(EdgetlError):
    """One photo that can't be decoded. ``source`` names it (a path, or what kind of object it was)."""

    def __init__(self, source: str, reason: str, hint: str | None = None) -> None:
        super().__init__(f"{source}: {reason}", hint)
        self.args = (source, reason, hint)  # what pickle rebuilds the error from
        self.source = source
        self.reason = reason


class PredictionError(EdgetlError):
    """A photo that could be decoded, but on which the model failed. ``source`` names the photo."""

    def __init__(self, source: str, reason: str, hint: str | None = None) -> None:
        super().__init__(f"{source}: {reason}", hint)
        self.args = (source, reason, hint)
        self.source = source
        self.reason = reason


class DataError(EdgetlError):
    """A data folder that can't be trained on."""


class TrainingError(EdgetlError):
    """A training run that can't start or go on."""


class CheckpointError(EdgetlError):
    """A run folder or checkpoint that can't be read or written."""


class ExportError(EdgetlError):
    """A model that can't be exported, or whose export does not match it."""


class BundleError(EdgetlError):
    """A bundle or model file that is damaged, incomplete or not ours. ``path`` names the file."""

    def __init__(self, path: str | Path, reason: str, hint: str | None = None) -> None:
        super().__init__(f"{path}: {reason}", hint)
        self.args = (path, reason, hint)
        self.path = Path(path)
        self.reason = reason


class NoSuchModelError(BundleError):
    """What was asked for is no bundle or model at all, or a bundle has no such model; nothing is damaged."""


class ParityError(EdgetlError):
    """A comparison that could not be made at all."""


class ResultsError(EdgetlError):
    """A file of results that can't be written, or not be continued with this model."""


class RuntimeUnavailableError(EdgetlError):
    """A device or an execution provider that was asked for and is not on this machine."""


class MissingDependencyError(EdgetlError):
    """An optional package that this command needs. The hint is the install command."""

    def __init__(self, package: str, needed_for: str, extra: str) -> None:
        hint = f'Install it with: pip install "edgetl[{extra}]"'
        super().__init__(f"{needed_for} needs {package}, which is not installed.", hint)
        self.args = (package, needed_for, extra)
        self.package = package
