"""torchvision and timm, imported without torch's compiler, which takes longer than both.

Import them from here: whatever imports them first decides. They only import ``torch._dynamo`` to
exclude functions from being compiled, and to ask once whether something can be. A placeholder
notes the former, and gives way to the compiler itself for anything else.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

import torch

_COMPILER, _UTILS = "torch._dynamo", "torch._dynamo.utils"
# By which torch excludes its own functions. A torch without it imports its compiler.
_disable_dynamo: Any = getattr(getattr(torch, "_compile", None), "_disable_dynamo", None)


class _Placeholder(ModuleType):
    """A module whose attributes, if it has not been given them, are those of the real one."""

    def __getattr__(self, attribute: str) -> Any:
        wanted = "__path__" if self.__name__ == _COMPILER else ""  # of a package
        if attribute.startswith("__") and attribute != wanted:
            raise AttributeError(attribute)
        _remove_placeholders()
        return getattr(import_module(self.__name__), attribute)


def _remove_placeholders() -> None:
    for name in (_COMPILER, _UTILS):
        if isinstance(sys.modules.get(name), _Placeholder):
            del sys.modules[name]


@contextmanager
def _without_compiler() -> Iterator[None]:
    if _COMPILER in sys.modules or _disable_dynamo is None:
        yield
        return
    compiler: Any = _Placeholder(_COMPILER)
    utils: Any = _Placeholder(_UTILS)
    compiler.disable = _exclude
    utils.is_compile_supported = lambda kind: import_module(_UTILS).is_compile_supported(kind)
    sys.modules |= {_COMPILER: compiler, _UTILS: utils}
    try:
        yield
    finally:
        _remove_placeholders()


def _exclude(function: Callable[..., Any], recursive: bool = True, **_: Any) -> Any:
    """As torch excludes its own functions: with the compiler, once they are called."""
    return _disable_dynamo(function, recursive)


with _without_compiler():
    import timm
    from timm.layers.linear import Linear as TimmLinear
    from timm.layers.norm_act import convert_sync_batchnorm
    from torchvision import models
    from torchvision.io import ImageReadMode, decode_jpeg
    from torchvision.transforms import InterpolationMode, v2

__all__ = [
    "ImageReadMode",
    "InterpolationMode",
    "TimmLinear",
    "convert_sync_batchnorm",
    "decode_jpeg",
    "models",
    "timm",
    "v2",
]
