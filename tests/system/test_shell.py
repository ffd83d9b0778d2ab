"""Shell commands that are shown to the user."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from edgetl.system.shell import shell_word


@pytest.mark.parametrize(("value", "word"), [(Path("runs/pets"), "runs/pets"), ("a b", "'a b'")])
def test_an_ordinary_name_stays_readable(value, word):
    assert shell_word(value) == word


@pytest.mark.parametrize(
    "name",
    ["new\nline", "\x1b[31mred's", "back\\slash\t1", "\x857", "图\u200b", os.fsdecode(b"\xff0")],
)
def test_any_name_is_printable_and_comes_through_a_shell(name):
    word = shell_word(name)
    assert word.isprintable()
    shown = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, check=True)
    assert shown.stdout == os.fsencode(name)


def test_half_of_a_character_is_shown_too():
    assert shell_word("\ud800") == r"$'\355\240\200'"
