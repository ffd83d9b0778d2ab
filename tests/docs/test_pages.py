"""The README and the documentation: blocks run and print what is shown, links lead somewhere.

Each page runs in a folder of its own that holds small synthetic photos, a run and a bundle.
Training is kept small by options that are added to the commands and calls; see ``SMALL``.
"""

from __future__ import annotations

import ast
import functools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import pytest
from click.testing import CliRunner
from helpers.markdown import CodeBlock, anchors, code_blocks, inline_code, links
from helpers.pictures import write_photo

import edgetl
from edgetl.cli.main import command as program
from edgetl.parity.runtimes import RUNTIMES
from edgetl.parity.runtimes.torchscript_file import TorchScript

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    ROOT / "exported/README.md",
    ROOT / "examples/README.md",
    *sorted(ROOT.glob("docs/**/*.md")),
]
RUN = {"console", "python", "sh"}
SHOWN = {"text", "json"}
"""Languages of blocks that show a layout, an output or a file."""
SMALL = {
    "backbone": "timm/test_resnet",
    "weights": "none",
    "image_size": 32,
    "resize": "published",
}
"""Options of training that a page does not choose itself."""
OTHER_OPTIONS = {"--help", "--sure", "--once", "--source"}
"""Options that click adds, and those of the examples."""


class QuickToStart(TorchScript):
    """``torchscript`` under the name of the runtime that starts a process, which imports torch."""

    name = "torchscript-fresh"


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def colour_photos(folder: Path, per_class: int, first: int) -> None:
    """Photos of two classes that any network can tell apart."""
    for label, colour in (("cat", (200, 80, 60)), ("dog", (60, 90, 200))):
        for number in range(first, first + per_class):
            write_photo(folder / label / f"{number}.jpg", colour, number + 500 * (label == "cat"))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the pages speak of."""
    folder = tmp_path_factory.mktemp("pages") / "prepared"
    colour_photos(folder / "pets/train", 12, 0)
    colour_photos(folder / "pets/val", 5, 100)
    colour_photos(folder / "pets/test", 4, 400)
    colour_photos(folder / "PetImages", 8, 200)
    for number in range(3):
        write_photo(folder / f"photos/{number}.jpg", (200, 80, 60), 300 + number, (40, 30))
    shutil.copy(folder / "photos/0.jpg", folder / "photo.jpg")
    (folder / "examples").symlink_to(ROOT / "examples")
    page = Page(folder)
    page.run_command("edgetl train pets -o runs/pets")
    page.run_command("edgetl export runs/pets -o exported/pets --golden 8")
    for name in ("old", "new"):
        shutil.copytree(folder / "exported/pets", folder / "exported" / name)
    return folder


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of programs, of which ``edgetl`` and ``python`` are those under test."""
    folder = tmp_path_factory.mktemp("bin")
    for name, what in (("edgetl", "-m edgetl"), ("python", "")):
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {what} "$@"\n')
        program.chmod(0o755)
    return folder


class Page:
    """One page's blocks, run in order in ``folder``; Python blocks share their variables."""

    def __init__(self, folder: Path, tools: Path | None = None) -> None:
        self.folder = folder
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.environment["PATH"] = os.pathsep.join([str(tools), os.environ["PATH"]])
        self.variables: dict[str, Any] = {"__name__": "page"}
        self.written: set[str] = set()

    def run(self, block: CodeBlock) -> None:
        """Run a block. Fails the test if it fails, or if it doesn't print what the page shows."""
        where = f"{name_of(block.page)}:{block.line}"
        if block.language == "python":
            code = compile("\n" * (block.line - 1) + block.text, block.page, "exec")
            exec(code, self.variables)
        elif block.language == "sh":
            self.run_in_shell(block.text)
        else:
            for command, shown in commands(block.text):
                missing = unlike(shown, self.run_command(command))
                assert not missing, f"{where}: `{command}` prints no line like {missing}"

    def run_command(self, command: str) -> str:
        """What a command line prints; run in this process where it is edgetl's alone."""
        words = shlex.split(command, comments=True)
        self.make_room(words)
        if words[0] != "edgetl" or re.search(r"[|<>&;]", " ".join(words)):
            return self.run_in_shell(command)
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            # xdist sets COLUMNS, which cuts tables that a pipe or a log shows whole.
            runner = CliRunner(env={"COLUMNS": None})
            done = runner.invoke(program, kept_small(words[1:]), catch_exceptions=False)
        finally:
            os.chdir(before)
        assert done.exit_code == 0, f"{command}\n{done.output}"
        return done.output

    def run_in_shell(self, script: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout

    def make_room(self, words: list[str]) -> None:
        """Remove what was prepared where the page itself writes it for the first time."""
        if words[:2] in (["edgetl", "train"], ["edgetl", "export"]) and "-o" in words:
            out = words[words.index("-o") + 1]
            if out not in self.written:
                shutil.rmtree(self.folder / out, ignore_errors=True)
            self.written.add(out)


def commands(text: str) -> list[tuple[str, list[str]]]:
    """A transcript's commands, each with the lines that it prints."""
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif line.strip() and line != "…":
            found[-1][1].append(line)
    return found


def unlike(shown: list[str], printed: str) -> list[str]:
    """The lines of ``shown`` that ``printed`` has nothing like, figures and widths aside."""
    lines = {pattern(line) for line in printed.splitlines()}
    return [line for line in shown if pattern(line) not in lines]


def pattern(line: str) -> str:
    """``line`` without what differs from one set of photos to another."""
    line = re.sub(r"(?<![\w.])-?\d[\d.]*(e[-+]\d+)?|\bequal(?= |$)(?! to)", "0", line)
    line = re.sub(r"\b[kM]B\b", "B", line)
    line = re.sub(r"^furthest: .* in \S+,", "furthest: PHOTO in RUNTIME,", line)
    return " ".join(line.split())


def kept_small(words: list[str]) -> list[str]:
    """The arguments of an ``edgetl`` command, with options that make training quick."""
    if words[0] != "train":
        return words
    small = dict(SMALL)
    if {"--backbone", "--recipe"} & set(words):
        del small["backbone"]
    if "--weights" in words:
        del small["weights"]
    added = []
    for name, value in small.items():
        added += [f"--{name.replace('_', '-')}", str(value)]
    if {"--strategy", "--recipe"} & set(words):
        added += ["--epochs", "1"]
    return [*words, *added]


def runnable(page: Path) -> list[CodeBlock]:
    return [block for block in code_blocks(page) if block.language in RUN and not block.not_run]


@pytest.mark.parametrize("page", [page for page in PAGES if runnable(page)], ids=name_of)
def test_every_block_runs(
    page: Path, prepared: Path, tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(prepared, tmp_path / "page", symlinks=True))
    monkeypatch.chdir(folder)
    monkeypatch.setattr(edgetl, "train", functools.partial(edgetl.train, **SMALL))
    monkeypatch.setitem(RUNTIMES, "torchscript-fresh", QuickToStart)
    reader = Page(folder, tools)
    for block in runnable(page):
        reader.run(block)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_is_run_or_says_why_not(page: Path) -> None:
    for block in code_blocks(page):
        where = f"{name_of(page)}:{block.line}"
        assert block.language, f"{where}: the block needs a language"
        if block.language == "json":
            json.loads(block.text)
        elif block.language not in SHOWN | RUN:
            assert block.not_run, f"{where}: add <!-- not run: REASON --> above this block"
        if block.language == "python":
            ast.parse(block.text)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in links(page):
        parts = urlsplit(target)
        if parts.scheme or parts.netloc:
            assert parts.scheme == "https" and "." in parts.netloc, target
            continue
        file = (page.parent / parts.path).resolve() if parts.path else page
        assert file.exists(), f"{name_of(page)}: {target}"
        if parts.fragment and file.suffix == ".md":
            assert parts.fragment in anchors_on_site(file), f"{name_of(page)}: {target}"


def anchors_on_site(page: Path) -> set[str]:
    """The anchors of a page, those of included and generated parts too."""
    found = anchors(page)
    for name in re.findall(r'^--8<-- "(.+)"$', page.read_text(encoding="utf-8"), re.MULTILINE):
        found |= anchors(ROOT / name)
    if page.name == "commands.md":
        found |= {name.replace(" ", "-") for name in every_command()}
    if page.name == "python.md":
        found |= {f"edgetl.{name}" for name in edgetl.__all__}
    return found


@functools.cache
def every_command() -> dict[str, click.Command]:
    """Full name → command, groups not included."""

    def below(group: click.Group, path: str) -> dict[str, click.Command]:
        context = click.Context(group)
        found: dict[str, click.Command] = {}
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            if isinstance(command, click.Group):
                found |= below(command, f"{path} {name}")
            else:
                found[f"{path} {name}"] = command
        return found

    return below(program, "edgetl")


def options_of(command: click.Command) -> set[str]:
    spellings = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
    return spellings | {"--help"}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_and_option_in_the_text_exists(page: Path) -> None:
    texts = [*inline_code(page)]
    for block in code_blocks(page):
        if block.language in ("console", "sh", "yaml"):
            texts += re.findall(r"(?:^|[ $&])(edgetl .*)", block.text, re.MULTILINE)
    options = {name: options_of(command) for name, command in every_command().items()}
    for text in texts:
        where = f"{name_of(page)}: `{text}`"
        for call in re.findall(r"\bedgetl (?=[a-z])[^&|;#`]*", text):
            words = call.split()
            named = [" ".join(words[:count]) for count in (3, 2)]
            name = next((each for each in named if each in options), None)
            assert name, where
            assert {word for word in words if re.match(r"--?[a-z]", word)} <= options[name], where
        if re.match(r"--[a-z]", text):
            assert text.split()[0] in OTHER_OPTIONS.union(*options.values()), where


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_file_in_the_text_exists(page: Path) -> None:
    for text in inline_code(page):
        if re.fullmatch(r"(edgetl|scripts|tests|examples|docs|\.ci)/[\w./-]*", text):
            assert (ROOT / text).exists(), f"{name_of(page)}: `{text}`"


def test_the_readme_is_one_page() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_the_site_shows_every_public_name() -> None:
    page = (ROOT / "docs/reference/python.md").read_text(encoding="utf-8")
    page = re.sub(r"<!--.*?-->", "", page, flags=re.DOTALL)
    shown = set(re.findall(r"^::: edgetl\.(\w+)$", page, re.MULTILINE))
    errors = {name for name in edgetl.__all__ if name.endswith("Error")}
    assert "errors" in shown
    assert set(edgetl.__all__) - errors - {"__version__"} == shown - {"errors"}
