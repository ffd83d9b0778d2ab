"""JSON as the line of text that it is in a terminal."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse


class JsonLine(JSONResponse):
    """A response in JSON that ends with a newline, as ``edgetl predict --json`` prints it."""

    def render(self, content: Any) -> bytes:
        return super().render(content) + b"\n"
