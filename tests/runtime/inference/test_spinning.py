"""How long a thread inside a run of the model spins; it changes no answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.pictures import photo

from edgetl import Predictor
from edgetl.errors import EdgetlError
from edgetl.runtime.inference import session as session_module

ENTRIES = ("session.intra_op.allow_spinning", "session.intra_op.spin_duration_us")


@pytest.fixture(autouse=True)
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The entries that each session is opened with."""
    opened = []
    plain = session_module._session_options

    def options(*arguments):
        chosen = plain(*arguments)
        opened.append(tuple(map(chosen.get_session_config_entry, ENTRIES)))
        return chosen

    monkeypatch.setattr(session_module, "_session_options", options)
    return opened


@pytest.mark.parametrize(
    ("value", "entries"),
    [
        (None, ("1", "20")),
        ("", ("1", "20")),
        ("0", ("0", "0")),
        ("1000", ("1", "1000")),
    ],
)
def test_threads_spin_briefly_unless_the_environment_says_otherwise(
    value: str | None,
    entries: tuple[str, str],
    sessions: list[tuple[str, ...]],
    tiny_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if value is None:
        monkeypatch.delenv("EDGETL_SPIN_US", raising=False)
    else:
        monkeypatch.setenv("EDGETL_SPIN_US", value)
    Predictor(tiny_bundle)
    assert sessions == [entries]


def test_the_answers_are_the_same_bits(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = []
    for value in ("0", "20", "1000000"):
        monkeypatch.setenv("EDGETL_SPIN_US", value)
        answers.append(Predictor(tiny_bundle, threads=2)(photo(1)).logits)
    assert all(np.array_equal(answer, answers[0]) for answer in answers)


@pytest.mark.parametrize("value", ["-1", "1.5", "soon", "²"])
def test_a_value_that_is_no_number_is_an_error(
    value: str, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGETL_SPIN_US", value)
    with pytest.raises(EdgetlError, match="EDGETL_SPIN_US is"):
        Predictor(tiny_bundle)
