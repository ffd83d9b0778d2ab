"""Every error that edgetl raises on purpose, except ValueError and TypeError for wrong arguments.

    EdgetlError                 all errors below; has .message and .hint
    ├── SpecError               a preprocessing description that can't be used
    ├── ImageError              a photo that can't be read; has .source
    ├── DataError               a data folder that can't be trained on
    ├── TrainingError           a training run that can't start or continue
    ├── CheckpointError         a run folder or checkpoint that can't be read or written
    ├── ExportError             a model that can't be exported
    ├── BundleError             a bundle or model file that can't be read or trusted; has .path
    │   ├── NoSuchModelError    there is no such model; nothing is damaged
    │   └── PredictionError     the model failed on a photo that could be read; has .source
    ├── ParityError             a comparison that couldn't be made (a mismatch is a result)
    ├── ResultsError            a results file that can't be written or continued
    ├── RuntimeUnavailableError a device or execution provider that is not available here
    └── MissingDependencyError  an optional package that is needed and not installed

Each message says what was wrong and where; ``hint`` says what to do next.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

E = TypeVar("E", bound=BaseException)


class EdgetlError(Exception):
    """Base class. ``str(error)`` is the message followed by the hint, if there is one.

    message  what is wrong, and where
    hint     what to do next, in a sentence or two, or None
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its class name if the message is empty."""
    message = error.message if isinstance(error, EdgetlError) else str(error)
    return (message.strip().splitlines() or [type(error).__name__])[0]


def without_traceback(error: E) -> E:
    """``error`` without its traceback and those of its causes: one that is kept as a result.

    The frames of a traceback hold what was passed to them, such as photos and models, and lead back
    to the error: all of that would stay in memory until circles of references are looked for.
    """
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error


class SpecError(EdgetlError):
    """A preprocessing description with a missing, unknown or impossible value."""


class ImageError(EdgetlError):
    """A photo that can't be decoded. ``source`` is its path, or what kind of object it was."""

    def __init__(self, source: str, reason: str, hint: str | None = None) -> None:
        super().__init__(f"{source}: {reason}", hint)
        self.args = (source, reason, hint)  # what pickle rebuilds the error from
        self.source = source
        self.reason = reason


class DataError(EdgetlError):
    """A data folder that can't be trained on."""


class TrainingError(EdgetlError):
    """A training run that can't start or continue."""


class CheckpointError(EdgetlError):
    """A run folder or checkpoint that can't be read or written."""


class ExportError(EdgetlError):
    """A model that can't be exported, or whose export does not match it."""


class BundleError(EdgetlError):
    """A bundle or model file that is damaged, incomplete or not written by edgetl.

    ``path`` names the file.
    """

    def __init__(self, path: str | Path, reason: str, hint: str | None = None) -> None:
        super().__init__(f"{path}: {reason}", hint)
        self.args = (path, reason, hint)
        self.path = Path(path)
        self.reason = reason


class NoSuchModelError(BundleError):
    """A path that is no bundle or model, or a model that the bundle lacks; nothing is damaged."""


class PredictionError(BundleError):
    """The model failed on a photo that could be read.

    ``source`` names the photo, ``path`` the model.
    """

    def __init__(self, source: str, path: str | Path, reason: str, hint: str | None = None) -> None:
        super().__init__(path, reason, hint)
        self.args = (source, path, reason, hint)
        self.source = source


class ParityError(EdgetlError):
    """A comparison that could not be made at all."""


class ResultsError(EdgetlError):
    """A results file that can't be written, or can't be continued with this model."""


class RuntimeUnavailableError(EdgetlError):
    """A device or execution provider that was asked for and is not available on this machine."""


class MissingDependencyError(EdgetlError):
    """An optional package that this command needs. The hint is the install command."""

    def __init__(self, package: str, needed_for: str, extra: str) -> None:
        extras = f"extra{'s' * (',' in extra)} {extra.replace(',', ' and ')}"
        message = f"{needed_for} needs the {extras}; {package} is not installed."
        super().__init__(message, f'Install it with: pip install "edgetl[{extra}]"')
        self.args = (package, needed_for, extra)
        self.package = package
