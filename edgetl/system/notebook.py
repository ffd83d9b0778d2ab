"""Results that show themselves in a notebook, as the HTML page of their report."""

from __future__ import annotations

from html import escape
from importlib import import_module
from typing import ClassVar

from edgetl.errors import MissingDependencyError

_HEIGHT = 620  # pixels; the page scrolls inside


class NotebookResult:
    """A result with a report.

    _page  "module:function" of what makes an HTML page of the result, or None. It is named and not
           imported, since results are below the reports that show them
    """

    _page: ClassVar[str]

    def _repr_html_(self) -> str | None:
        """Called by notebooks. None, which shows the plain repr, without the report's packages."""
        module, _, function = self._page.partition(":")
        try:
            page = getattr(import_module(module), function)(self)
        except MissingDependencyError:
            return None
        if page is None:
            return None
        # In a frame, the page's style neither changes the notebook nor is changed by it. It is
        # sandboxed: no script runs in it.
        text = page.encode("utf-8", "backslashreplace").decode()
        return (
            f'<iframe sandbox srcdoc="{escape(text)}" '
            f'style="width:100%;height:{_HEIGHT}px;border:0"></iframe>'
        )
