"""Programs outside this process that decode photos themselves: the bases of their runtimes."""

from __future__ import annotations

import subprocess
import tempfile
import threading
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from PIL import Image

from edgetl.parity.check_photos import Photo, Unreadable
from edgetl.parity.runtimes.base import Runtime
from edgetl.parity.stage_stream import parse_stages, read_message, write_message
from edgetl.parity.stages import LeftOut, Refusal, Stages
from edgetl.system.child_process import kill_child, start_child


class StagesProgram(Runtime):
    """A program that answers with the stages of one photo at a time, as stage_stream.py says."""

    decodes = True
    follows_precision = True
    exact_integers = True
    formats: ClassVar[tuple[str, ...]] = ()
    """Those that it decodes, as Pillow names them; photos of others are left out. (): all."""
    seconds: ClassVar[float] = 120.0
    """How long it may take for a photo, and to start before the first."""

    @abstractmethod
    def ask(self, content: bytes) -> bytes:
        """The program's answer for the bytes of a photo's file. Raises RuntimeError."""

    def run(self, photos: Sequence[Photo | Unreadable]) -> Sequence[Stages | Refusal | LeftOut]:
        return [self._stages(photo) for photo in photos]

    def _stages(self, photo: Photo | Unreadable) -> Stages | Refusal | LeftOut:
        if not photo.path.is_file():
            return Refusal("it is not a regular file")
        if self.formats and _format(photo.path) not in (None, *self.formats):
            return LeftOut()
        try:
            content = photo.path.read_bytes()
        except OSError as error:
            return Refusal(str(error.strerror))
        try:
            return parse_stages(self.ask(content))
        except RuntimeError as error:
            raise RuntimeError(f"{photo.name}: {error}") from error


class ChildProgram(StagesProgram):
    """One that reads photos from its stdin and writes answers to its stdout."""

    def start(self, command: Sequence[str]) -> None:
        """Start it in the background; the first ``ask`` waits for it. Raises OSError."""
        self._folder = tempfile.TemporaryDirectory(prefix="edgetl-parity-")
        self._errors = Path(self._folder.name) / "stderr"  # a pipe could fill up
        with self._errors.open("wb") as errors:
            try:
                self._process = start_child(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
                )
            except OSError:
                self._folder.cleanup()
                raise

    def ask(self, content: bytes) -> bytes:
        process, expired = self._process, threading.Event()
        assert process.stdin is not None and process.stdout is not None

        def expire() -> None:
            expired.set()
            kill_child(process)

        timer = threading.Timer(self.seconds, expire)
        timer.start()
        try:
            write_message(process.stdin, content)
            answer = read_message(process.stdout)
        except (OSError, ValueError):  # it has ended, or was killed
            answer = None
        finally:
            timer.cancel()
        if answer is not None:
            return answer
        if expired.is_set():
            raise RuntimeError(f"the program did not answer within {self.seconds:g} seconds")
        code = process.wait()
        lines = self._errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise RuntimeError(f"the program ended ({code}): {lines[-1] if lines else 'no message'}")

    def close(self) -> None:
        kill_child(self._process)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(OSError):  # what was not written is lost
                pipe.close()
        self._folder.cleanup()


def _format(path: Path) -> str | None:
    try:
        with Image.open(path) as image:
            return image.format
    except Exception:  # damaged, in whatever way: the program has to refuse it
        return None
