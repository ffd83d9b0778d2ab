"""The JavaScript module of a bundle's web folder, in Node and in browsers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlencode

from edgetl.errors import BundleError, RuntimeUnavailableError
from edgetl.parity.browser import BrowserPage, find_browser
from edgetl.parity.runtimes.base import Subject
from edgetl.parity.runtimes.stages_program import ChildProgram, StagesProgram
from edgetl.runtime.bundle.bundle_folder import MANIFEST

_SCRIPT = Path(__file__).with_name("web_module.mjs")
_PAGE = "edgetl-check.html"
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP")


def _web_folder(subject: Subject) -> Path:
    """Raises RuntimeUnavailableError if there is none with onnxruntime-web in it, BundleError if
    its own manifest describes another model."""
    folder = subject.path / "web"
    if subject.bundle is None or not (folder / "ort").is_dir():
        from edgetl.exporting.web_folder import ort_command  # which needs onnx

        raise RuntimeUnavailableError(
            f"{subject.path} holds no web folder with onnxruntime-web.",
            f"Get that with `{ort_command()}`, and export the run again with "
            "`--web --ort node_modules/onnxruntime-web`.",
        )
    card = json.loads((folder / MANIFEST).read_bytes())["card"]
    if card != subject.bundle.manifest["card"]:
        raise BundleError(
            folder, "its model card differs from the bundle's.", "Export it again with --web."
        )
    return folder


class Node(ChildProgram):
    """In Node.js."""

    name = "node"
    formats = _FORMATS

    def __init__(self, subject: Subject) -> None:
        folder = _web_folder(subject)
        program = shutil.which("node")
        if program is None:
            raise RuntimeUnavailableError(
                "node is not on PATH.", "Install Node.js: on Debian, `apt-get install nodejs`."
            )
        self.start([program, str(_SCRIPT), str(folder.absolute()), subject.precision])


class Browser(StagesProgram):
    """On a page in a headless browser."""

    formats = _FORMATS
    browser: ClassVar[str]

    def __init__(self, subject: Subject) -> None:
        folder = _web_folder(subject)
        find_browser(self.browser)
        script = _SCRIPT.name
        query = urlencode({"precision": subject.precision})
        page = f'<!doctype html><script type="module" src="{script}?{query}"></script>'
        pages = {_PAGE: page.encode(), script: _SCRIPT.read_bytes()}
        self._page = BrowserPage(self.browser, folder, _PAGE, pages=pages)

    def ask(self, content: bytes) -> bytes:
        self._page.send(content)
        return self._page.receive(self.seconds)

    def close(self) -> None:
        self._page.close()


class Chromium(Browser):
    name = browser = "chromium"


class Firefox(Browser):
    name = browser = "firefox"
