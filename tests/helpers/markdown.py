"""Reading Markdown: code blocks, links, headings, inline code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^( *)```(\S*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_NOT_RUN = re.compile(r"<!-- not run: (\S.*?) -->\s*$")
_LINK = re.compile(r"!?\[[^\]]*\]\(\s*([^)\s]+)[^)]*\)")
_HEADING = re.compile(r"^#{1,6} +(.*?) *#*$", re.MULTILINE)
_CODE = re.compile(r"(`+)(.+?)\1", re.DOTALL)


@dataclass(frozen=True)
class CodeBlock:
    """A fenced block.

    line     number of its first line in the file, from 1
    not_run  why it is not run, from the comment in the line above; None where there is none
    """

    page: Path
    line: int
    language: str
    text: str
    not_run: str | None


def code_blocks(page: Path) -> list[CodeBlock]:
    """Every fenced block of ``page``, in order."""
    source = page.read_text(encoding="utf-8")
    blocks = []
    for match in _FENCE.finditer(source):
        reason = _NOT_RUN.search(source[: match.start()])
        line = source.count("\n", 0, match.start()) + 2
        blocks.append(CodeBlock(page, line, match[2], match[3], reason[1] if reason else None))
    return blocks


def _prose(page: Path) -> str:
    return _COMMENT.sub("", _FENCE.sub("", page.read_text(encoding="utf-8")))


def links(page: Path) -> list[str]:
    """The target of every link and image of ``page``."""
    return _LINK.findall(_CODE.sub("", _prose(page)))


def inline_code(page: Path) -> list[str]:
    """Every piece of inline code of ``page``, on one line each."""
    return [" ".join(match[2].split()) for match in _CODE.finditer(_prose(page))]


def anchors(page: Path) -> set[str]:
    """The anchors of ``page``'s headings, as GitHub and mkdocs make them."""
    return {
        re.sub(r"[^\w\- ]", "", heading.replace("`", "")).strip().lower().replace(" ", "-")
        for heading in _HEADING.findall(_prose(page))
    }
