"""Replace a folder in forked children, each killed at another line of the code. Run as a script.

    python kill_points.py FOLDER swap|rename

Prints one line of JSON per child: the content of FOLDER after the kill, and after the next write.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

from edgetl.system import atomic_folder, temporary_folder

OLD = {"model.onnx": b"old", "golden/0.jpg": b"old photo", "only-old": b"x"}
NEW = {"model.onnx": b"new", "golden/0.jpg": b"new photo", "manifest.json": b"new"}


def kill_after(lines: int) -> None:
    """From now on, die at the ``lines``-th line run in atomic_folder.py or temporary_folder.py."""
    left = lines

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in (atomic_folder.__file__, temporary_folder.__file__):
            return None
        left -= event == "line"
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)


def killed_while_writing(folder: Path, lines: int) -> bool:
    """Write NEW in a child that dies at line ``lines``; False if it was done before."""
    child = os.fork()
    if child == 0:
        kill_after(lines)
        atomic_folder.replace_folder(folder, NEW)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def content(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()
    }


def main(folder: Path) -> None:
    for lines in count(1):
        atomic_folder.replace_folder(folder, OLD)
        died = killed_while_writing(folder, lines)
        seen = content(folder)
        atomic_folder.remove_leftovers(folder)
        left = sorted(path.name for path in folder.parent.iterdir())
        print(json.dumps({"died": died, "seen": seen, "recovered": content(folder), "left": left}))
        if not died:
            break


if __name__ == "__main__":
    if sys.argv[2] == "rename":
        # Private: as on a file system that can't exchange two names.
        atomic_folder._exchange = lambda first, second: False
    main(Path(sys.argv[1]))
