"""Every command explains itself, and the README says the same."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import click
import pytest

from edgetl.cli.main import command as program
from edgetl.parity.runtimes import RUNTIMES

ROOT = Path(__file__).parents[2]
WRITER = runpy.run_path(str(ROOT / "scripts" / "write_help.py"))
COMMANDS = dict(WRITER["commands"](program, "edgetl"))


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


def test_the_readme_holds_the_help_texts() -> None:
    written = subprocess.run(
        [sys.executable, ROOT / "scripts" / "write_help.py", "--check"],
        capture_output=True,
        text=True,
    )
    assert written.returncode == 0, written.stderr
