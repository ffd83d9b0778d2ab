"""Whole networks as TorchScript programs: what a checkpoint holds where no name rebuilds a network.

A program is code, of which torch unpickles parts: read only what you trust.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch
from torch import Tensor

from edgetl.errors import first_line
from edgetl.onnx_graph.tracing import quiet

PROGRAM = "torchscript"
"""Name of the tensor that holds a program, uint8 [bytes]; prefix of the backbone's name."""


def is_torchscript(path: Path) -> bool:
    """Whether ``path`` is an archive that ``torch.jit.save`` wrote."""
    try:
        with path.open("rb") as file:
            if file.read(2) != b"PK":  # a checkpoint that holds a program only ends like an archive
                return False
            with ZipFile(file) as archive:
                return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (BadZipFile, OSError):
        return False


def program_bytes(network: torch.jit.ScriptModule) -> Tensor:
    """``network`` as uint8 [bytes]."""
    file = io.BytesIO()
    torch.jit.save(network, file)
    return torch.from_numpy(np.frombuffer(file.getvalue(), np.uint8).copy())


def read_program(source: Tensor | Path) -> torch.jit.ScriptModule:
    """The program in a file, or in what ``program_bytes`` returned; on the CPU, in eval mode.

    Raises RuntimeError for anything else.
    """
    file: Any = str(source) if isinstance(source, Path) else io.BytesIO(source.numpy().tobytes())
    try:
        with quiet():  # torch warns that it is deprecated
            program: torch.jit.ScriptModule = torch.jit.load(file, map_location="cpu")
    except Exception as error:  # of many types, for a damaged file
        raise RuntimeError(first_line(error)) from error
    return program.eval()
