"""What a service is set to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgetl.errors import EdgetlError

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable: the folder in which the processes of a service share their figures."""

_MIN_TOKEN = 16  # letters; fewer can be guessed


@dataclass(frozen=True)
class ServiceSettings:
    """The settings of a service, the same in each of its processes.

    models     name → bundle folder or lone model.onnx; the first one answers where none is named
    predictor  keyword arguments of ``Predictor``
    workers    processes that share the port
    queue      photos that may wait or be worked on in one process
    max_wait   seconds that a photo waits for others to run with it, on a GPU
    timeout    seconds for receiving a request, and for answering it
    max_body   bytes of a request
    token      what a request must carry; None: nothing
    only_here  requests must be addressed to this machine by an IP address or as localhost
    """

    models: Mapping[str, Path]
    predictor: Mapping[str, Any] = field(default_factory=dict)
    workers: int = 1
    queue: int = 64
    max_wait: float = 0.002
    timeout: float = 30.0
    max_body: int = 32 << 20
    token: str | None = None
    only_here: bool = True


def model_names(paths: list[Path]) -> dict[str, Path]:
    """The names under which models are served: of their folder, or of a lone file without suffix.

    Raises EdgetlError if two are the same, or one can't be said in an address.
    """
    named: dict[str, Path] = {}
    for path in paths:
        full = path.absolute()
        name = full.stem if full.suffix == ".onnx" else full.name
        try:
            name.encode()
        except UnicodeEncodeError as error:
            hint = "A model is served under the name of its folder: rename that."
            raise EdgetlError(f"The name {name!r} of a model is not UTF-8.", hint) from error
        if name in named:
            raise EdgetlError(
                f"{named[name]} and {path} would both be served as {name!r}.",
                "Rename one: a model is served under the name of its folder.",
            )
        named[name] = path
    return named


def read_token(file: Path) -> str:
    """The token in the first line of ``file``. Raises EdgetlError if there is none."""
    try:
        token = file.read_text(encoding="utf-8").partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise EdgetlError(f"The token can't be read from {file}: {reason}.") from error
    if len(token) < _MIN_TOKEN or not (token.isascii() and token.isprintable()) or " " in token:
        raise EdgetlError(
            f"{file} holds no token: its first line needs {_MIN_TOKEN} letters and digits.",
            f"Make one: openssl rand -hex 24 > {file}",
        )
    return token
