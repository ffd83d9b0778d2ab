"""Running torch's exporters: quietly, and with attention in operators that ONNX has."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn

_LOGGERS = (
    "torch",
    "torch._guards",
    "torch.fx.experimental.symbolic_shapes",
    "torch.onnx",
    "onnxscript",
    "onnx_ir",
    "root",
)
_STDOUT = 1  # file descriptor, which the exporter's C++ code writes to, past sys.stdout


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Discard warnings, output and log messages (whole graphs, sometimes); exceptions pass."""
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        _no_native_stdout(),
    ):
        warnings.simplefilter("ignore")
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


@contextlib.contextmanager
def plain_attention() -> Iterator[None]:
    """Without torch's fused attention: it is chosen in eval mode, and has no ONNX operator."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def trace(network: nn.Module, example: Tensor) -> torch.jit.ScriptModule:
    """TorchScript of what ``network`` does with ``example``; it may not hold for other photos."""
    traced: torch.jit.ScriptModule = torch.jit.trace(network, example, check_trace=False)
    return traced


def compile_network(network: nn.Module, example: Tensor) -> torch.jit.ScriptModule:
    """TorchScript of the code of ``network``, whose types are those that ``example`` shows."""
    compiled: torch.jit.ScriptModule = torch.jit.script(network, example_inputs=[(example,)])
    return compiled


@contextlib.contextmanager
def _no_native_stdout() -> Iterator[None]:
    try:
        saved = os.dup(_STDOUT)
    except OSError:  # the process has no standard output
        yield
        return
    devnull = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(devnull, _STDOUT)
        yield
    finally:
        os.dup2(saved, _STDOUT)
        os.close(saved)
        os.close(devnull)
