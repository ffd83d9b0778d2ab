"""Shows mkdocstrings the parameters in edgetl's docstrings.

There they are aligned columns, which read well in an editor and in ``help()``:

    model      a bundle folder, or a lone model.onnx
    threads    threads inside one run of the model; None: one a core

mkdocstrings knows Google's style, so such a block is handed to it as an ``Args:`` or
``Attributes:`` section. A default that is a named constant is shown as its value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from griffe import Alias, Attribute, Class, ExprName, Extension, Function, Object

_ENTRY = re.compile(r"(?P<names>\w+(?:, \w+)*) {2,}(?P<text>\S.*)")


class ColumnsAsSections(Extension):
    """Rewrites docstrings and defaults once the package is read."""

    def on_function(self, *, func: Function, **_: Any) -> None:
        """Called by griffe for each function."""
        _rewrite(func, {"Args": {parameter.name for parameter in func.parameters}})
        for parameter in func.parameters:
            if isinstance(parameter.default, ExprName):
                constant = parameter.default.resolved
                constant = constant.final_target if isinstance(constant, Alias) else constant
                if isinstance(constant, Attribute) and constant.value is not None:
                    parameter.default = str(constant.value)

    def on_class(self, *, cls: Class, **_: Any) -> None:
        """Called by griffe for each class."""
        init = cls.members.get("__init__")
        arguments = {p.name for p in init.parameters} if isinstance(init, Function) else set()
        _rewrite(cls, {"Attributes": set(cls.members), "Args": arguments})


def _rewrite(obj: Object, sections: Mapping[str, set[str]]) -> None:
    if obj.docstring:
        paragraphs = obj.docstring.value.split("\n\n")
        obj.docstring.value = "\n\n".join(_as_section(each, sections) for each in paragraphs)


def _as_section(paragraph: str, sections: Mapping[str, set[str]]) -> str:
    """``paragraph`` as one of ``sections`` if it is a block of columns, as code if it is a session.

    sections  title → the names that may stand in it
    """
    if paragraph.startswith(">>> "):
        return f"```pycon\n{paragraph}\n```"
    entries: list[tuple[str, str]] = []
    for line in paragraph.splitlines():
        if match := _ENTRY.fullmatch(line):
            entries += [(name, match["text"]) for name in match["names"].split(", ")]
        elif entries and line.startswith("  "):
            entries[-1] = (entries[-1][0], f"{entries[-1][1]} {line.strip()}")
        else:
            return paragraph
    names = {name for name, _ in entries}
    for title, known in sections.items():
        if names <= known:
            return "\n".join([f"{title}:", *(f"    {name}: {text}" for name, text in entries)])
    return "\n".join(f"- **{name}**: {text}" for name, text in entries)
