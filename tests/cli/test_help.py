"""Every command explains itself, and the reference in the documentation says the same."""

from __future__ import annotations

import html
import re
import runpy
from pathlib import Path

import click
import pytest

from edgetl.cli.main import command as program
from edgetl.parity.runtimes import RUNTIMES

REFERENCE = runpy.run_path(str(Path(__file__).parents[2] / "scripts/site/pages.py"))
COMMANDS = dict(REFERENCE["commands"](program, "edgetl"))


def test_the_main_path_is_all_there() -> None:
    assert {
        "edgetl train",
        "edgetl export",
        "edgetl check",
        "edgetl predict",
        "edgetl info",
    } <= set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_one_line_help(name: str) -> None:
    for parameter in COMMANDS[name].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
            assert "\n" not in parameter.help, parameter.name
            assert len(parameter.help) <= 110, parameter.name


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_an_example(name: str) -> None:
    text = COMMANDS[name].help or ""
    assert "Example:" in text
    assert f"  {name} " in text.split("Example:")[1]


def test_what_is_written_is_named_alike_everywhere() -> None:
    for name in ("edgetl train", "edgetl export", "edgetl predict"):
        spellings = [
            parameter.opts for parameter in COMMANDS[name].params if "-o" in parameter.opts
        ]
        assert spellings == [["-o", "--out", "--output"]], name


def test_every_runtime_is_named() -> None:
    listed = re.search(r"Runtimes: (.*?)\.\n", COMMANDS["edgetl check"].help or "", re.DOTALL)
    assert listed
    assert re.findall(r"[a-z][\w-]+", re.sub(r"\(.*?\)", "", listed[1])) == list(RUNTIMES)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_reference_lists_every_option(name: str) -> None:
    page: str = REFERENCE["command_reference"]()
    section = page.split(f"## {name}\n")[1].split("\n## ")[0]
    listed = re.findall(r"^`(-.*)`\n:   (.+)$", section, re.MULTILINE)
    names = {
        option
        for spelling, _ in listed
        for option in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", spelling)
    }
    expected = {
        option
        for parameter in COMMANDS[name].params
        if isinstance(parameter, click.Option)
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    assert names == expected | {"-h", "--help"}
    texts = html.unescape(" ".join(text for _, text in listed)).replace("\\", "")
    for parameter in COMMANDS[name].params:
        if isinstance(parameter, click.Option) and parameter.help:
            assert parameter.help.split("  [")[0] in texts


@pytest.mark.parametrize("name", COMMANDS)
def test_the_reference_explains_every_command(name: str) -> None:
    page: str = REFERENCE["command_reference"]()
    first_sentence = (COMMANDS[name].help or "").split(".")[0].split("\n")[0]
    section = page.split(f"## {name}\n")[1].split("\n## ")[0]
    assert first_sentence in section
    assert section.count("```text") == 2  # how it is called, and an example
