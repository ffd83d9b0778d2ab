"""Services to test: in this process, and in one of their own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.serving.served_models import ServedModel, ServedModels
from edgetl.serving.service_app import service_app
from edgetl.serving.service_settings import ServiceSettings

ORIGIN = "http://127.0.0.1:8000"


@contextmanager
def client(
    *bundles: Path, models: Any = None, token: str | None = None, **settings: Any
) -> Iterator[TestClient]:
    """A client of a service of ``bundles``, each under the name of its folder.

    models  to be used in place of those of the bundles
    """
    chosen = ServiceSettings(
        {bundle.name: bundle for bundle in bundles}, {"threads": 1}, token=token, **settings
    )
    app = service_app(chosen, models or ServedModels(chosen))
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    with TestClient(
        app, ORIGIN, raise_server_exceptions=False, headers=headers, follow_redirects=False
    ) as found:
        yield found


class Scripted:
    """Stands for the models of a service: what it does with a photo is up to ``answer``."""

    def __init__(self, answer: Callable[[Any], Any], card: ModelCard | None = None) -> None:
        def predictor(photo: object) -> Any:
            return answer(photo)

        predictor.model_id, predictor.card = "0", card  # type: ignore[attr-defined]
        self.model = ServedModel("scripted", predictor)  # type: ignore[arg-type]

    def __getitem__(self, name: str | None) -> ServedModel:
        return self.model

    def __iter__(self) -> Iterator[ServedModel]:
        return iter([self.model])

    def take_replaced(self) -> dict[str, bool]:
        return {}


@contextmanager
def service(*arguments: object) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of ``edgetl serve`` in a process of its own, and that process."""
    command = [sys.executable, "-m", "edgetl", "serve", *map(str, arguments), "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            line = process.stdout.readline()
            found = re.search(r"at (http://\S+)/", line)
            assert found, line + process.stderr.read()
            yield found[1], process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(30)


def figures(text: str) -> dict[str, float]:
    """The figures of ``GET /metrics``, by name and labels as they are printed."""
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}
