"""Results in a notebook: the page in a frame, or the plain repr."""

from __future__ import annotations

import html
import re
import sys
from types import SimpleNamespace

import pytest

from edgetl.errors import MissingDependencyError
from edgetl.system.notebook import NotebookResult


class Shown(NotebookResult):
    _page = "pages:page"


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch):
    """A function that sets what the page is."""

    def set_page(make) -> None:
        monkeypatch.setitem(sys.modules, "pages", SimpleNamespace(page=make))

    return set_page


def test_the_page_is_escaped_and_in_a_frame_without_scripts(page):
    text = '<!doctype html><h1 title="a">A & B</h1><script>alert("1")</script>'
    page(lambda result: text)
    shown = Shown()._repr_html_()
    assert shown is not None
    assert re.findall(r"<(\w+)", shown) == ["iframe"]
    found = re.fullmatch(r'<iframe sandbox srcdoc="([^"]*)" style="[^"]*"></iframe>', shown)
    assert found and html.unescape(found[1]) == text


def test_names_that_are_not_unicode_can_be_shown(page):
    page(lambda result: "caf\udce9.jpg")
    assert "caf\\udce9.jpg" in (Shown()._repr_html_() or "")


def test_without_a_page_or_its_packages_the_plain_repr_is_shown(page):
    def missing(result: Shown) -> str:
        raise MissingDependencyError("jinja2", "The HTML report", "report")

    for make in (lambda result: None, missing):
        page(make)
        assert Shown()._repr_html_() is None
