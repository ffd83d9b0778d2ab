"""The TorchScript file: loaded here, and in a process that has no edgetl."""

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
    """Its ``forward``, as users call it, for the answers; the methods of its preprocessing for the stages before."""

    name = "torchscript"

    def __init__(self, subject: Subject) -> None:
        import torch

        path = subject.file(_FORMAT)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # it is deprecated, and said to be so in ways that change with torch
            self._module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
        self._torch, self._threads = torch, subject.threads

    def run(self, photos: Sequence[Photo | Unreadable]) -> Sequence[Stages | Refusal]:
        self._torch.set_num_threads(self._threads)
        pixels = [photo.pixels for photo in photos if isinstance(photo, Photo)]
        return [Stages(**fresh_worker.stages(self._torch, self._module, image)) for image in pixels]


class TorchScriptFresh(Runtime):
    """What someone gets who has the file and torch, and nothing of ours. Arrays travel as .npy files."""

    name = "torchscript-fresh"

    def __init__(self, subject: Subject) -> None:
        path = subject.file(_FORMAT)
        self._folder = tempfile.TemporaryDirectory(prefix="edgetl-parity-")
        # -P: the worker's own folder, which is inside edgetl, is not where its imports are looked for.
        command = [
            sys.executable,
            "-P",
            fresh_worker.__file__,
            str(path),
            self._folder.name,
            str(subject.threads),
        ]
        self._words = Path(self._folder.name) / "stderr"  # a file: nobody would empty a pipe
        with self._words.open("w") as words:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=words,
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
            raise self._no_room(f"{type(error).__name__}: {error}") from error
        self._ask(len(images))
        return [
            Stages(
                **{stage: np.load(folder / f"{index}.{stage}.npy") for stage in fresh_worker.STAGES}
            )
            for index in range(len(images))
        ]

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()  # also closes the pipes
        self._folder.cleanup()

    def _ask(self, count: int) -> None:
        """Have the worker compute images 0 … count − 1. Raises RuntimeError with the worker's own last words, or ParityError
        where it could not write."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            print(count, file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        except OSError:
            answer = ""
        if not answer:
            self._process.wait()
            words = self._words.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise RuntimeError(f"the process ended: {words[-1] if words else 'it said nothing'}")
        answered = json.loads(answer)
        if answered["error"] is not None:
            raise (
                self._no_room(answered["error"])
                if answered["disk"]
                else RuntimeError(answered["error"])
            )

    def _no_room(self, reason: str) -> ParityError:
        """Says nothing about the model."""
        return ParityError(
            f"{self._folder.name} can't be written: {reason}.",
            "Free some space, or have TMPDIR name a folder with more.",
        )
