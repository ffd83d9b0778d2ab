"""The TorchScript file, in this process and in one without edgetl."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgetl.errors import ParityError
from edgetl.parity.check_photos import Photo, Unreadable
from edgetl.parity.runtimes import fresh_worker
from edgetl.parity.runtimes.base import Runtime, Subject
from edgetl.parity.stages import Refusal, Stages

_FORMAT = "torchscript"


class TorchScript(Runtime):
    """Predictions come from the module's ``forward``, the stages before from its preprocessing."""

    name = "torchscript"

    def __init__(self, subject: Subject) -> None:
        import torch

        path, self._outputs = subject.file(_FORMAT), subject.card.outputs
        with warnings.catch_warnings():
            # Deprecated, with a warning that differs between versions of torch.
            warnings.simplefilter("ignore")
            self._module = torch.jit.load(str(path), map_location="cpu")
        self._torch, self._threads = torch, subject.threads

    def run(self, photos: Sequence[Photo | Unreadable]) -> Sequence[Stages | Refusal]:
        self._torch.set_num_threads(self._threads)
        pixels = [photo.pixels for photo in photos if isinstance(photo, Photo)]
        return [
            Stages(**fresh_worker.stages(self._torch, self._module, image, self._outputs))
            for image in pixels
        ]


class TorchScriptFresh(Runtime):
    """The file as used with torch alone, without edgetl; arrays are exchanged as .npy files."""

    name = "torchscript-fresh"

    def __init__(self, subject: Subject) -> None:
        path = subject.file(_FORMAT)
        self._folder = tempfile.TemporaryDirectory(prefix="edgetl-parity-")
        # -P: don't import from the script's own folder, which is inside edgetl.
        command = [sys.executable, "-P", fresh_worker.__file__]
        arguments = [str(path), self._folder.name, str(subject.threads), *subject.card.outputs]
        self._stages = (*fresh_worker.PREPROCESSING, *subject.card.outputs)
        self._errors = Path(self._folder.name) / "stderr"  # a pipe could fill up
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                [*command, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                encoding="utf-8",
            )

    def run(self, photos: Sequence[Photo | Unreadable]) -> Sequence[Stages | Refusal]:
        folder = Path(self._folder.name)
        images = [photo.pixels for photo in photos if isinstance(photo, Photo)]
        try:
            for index, pixels in enumerate(images):
                np.save(folder / f"{index}.npy", pixels)
        except OSError as error:
            raise self._disk_error(f"{type(error).__name__}: {error}") from error
        self._run_worker(len(images))
        return [
            Stages(**{stage: np.load(folder / f"{index}.{stage}.npy") for stage in self._stages})
            for index in range(len(images))
        ]

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()  # also closes the pipes
        self._folder.cleanup()

    def _run_worker(self, count: int) -> None:
        """Let the worker process images 0 … count − 1.

        Raises RuntimeError with the worker's error, or ParityError where it could not write.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            print(count, file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        except OSError:
            answer = ""
        if not answer:
            self._process.wait()
            lines = self._errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise RuntimeError(f"the process ended: {lines[-1] if lines else 'without a message'}")
        values = json.loads(answer)
        if values["error"] is not None:
            if values["disk"]:
                raise self._disk_error(values["error"])
            raise RuntimeError(values["error"])

    def _disk_error(self, reason: str) -> ParityError:
        """Not a failure of the model, so the check as a whole can't be made."""
        return ParityError(
            f"{self._folder.name} can't be written: {reason}.",
            "Free some space, or set TMPDIR to a folder with more.",
        )
