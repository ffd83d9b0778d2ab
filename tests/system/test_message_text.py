"""Counts and shortened lists in messages."""

from __future__ import annotations

import pytest

from edgetl.system.message_text import counted, enumerated, first_few


def test_one_is_not_a_plural():
    assert [counted(n, "photo") for n in (0, 1, 1000)] == ["0 photos", "1 photo", "1,000 photos"]


@pytest.mark.parametrize(
    ("names", "shown"),
    [("", []), ("ab", ["a", "b"]), ("abc", ["a", "b", "and 1 more"])],
)
def test_what_is_not_shown_is_counted(names, shown):
    assert first_few(list(names), 2) == shown


def test_a_sentence_names_five():
    assert enumerated(list("abcde")) == "a, b, c, d, e"
    assert enumerated(list("abcdefg")) == "a, b, c, d, e and 2 more"


def test_names_in_a_sentence_stay_in_their_line():
    assert enumerated(["new\nline", "\x1b[31mred"]) == r"new\nline, \x1b[31mred"
