"""What every use of torch's exporters needs: their chatter kept off the terminal, and operators that ONNX has."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator

import torch

_CHATTY = (
    "torch",
    "torch._guards",
    "torch.fx.experimental.symbolic_shapes",
    "torch.onnx",
    "onnxscript",
    "onnx_ir",
    "root",
)
_STDOUT = 1  # the file descriptor: the C++ side of the exporter writes there, past sys.stdout


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Swallow warnings, prints and log lines of the block, whole graphs among them; its exceptions pass."""
    levels = {name: logging.getLogger(name).level for name in _CHATTY}
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        _no_native_stdout(),
    ):
        warnings.simplefilter("ignore")
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


@contextlib.contextmanager
def plain_attention() -> Iterator[None]:
    """torch's fused attention, which it chooses in eval mode, has no ONNX operator; its single steps have."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


@contextlib.contextmanager
def _no_native_stdout() -> Iterator[None]:
    try:
        kept = os.dup(_STDOUT)
    except OSError:  # a program without a standard output has nothing to keep clean
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, _STDOUT)
        yield
    finally:
        os.dup2(kept, _STDOUT)
        os.close(kept)
        os.close(nowhere)
