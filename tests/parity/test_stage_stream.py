"""What goes between this process and a program that shows stages."""

from __future__ import annotations

import io

import numpy as np
import pytest

from edgetl.parity.stage_stream import encode_stages, parse_stages, read_message, write_message
from edgetl.parity.stages import STAGES, Refusal, Stages


def test_every_stage_comes_back() -> None:
    rng = np.random.default_rng(0)
    stages = Stages(
        decoded=rng.integers(0, 256, (5, 7, 3), np.uint8),
        resized=np.full((2, 2, 3), ord("\n"), np.uint8),
        normalized=rng.normal(size=(3, 2, 2)).astype(np.float32),
        logits=np.float32([np.nan, np.inf, -1]),
        probabilities=np.float32([0.25, 0.5, 0.25]),
        ood_score=np.array(1.5),
    )
    found = parse_stages(encode_stages(stages))
    assert isinstance(found, Stages)
    for stage in STAGES:
        expected, values = stages.at(stage), found.at(stage)
        assert (expected is None) == (values is None)
        if expected is not None and values is not None:
            np.testing.assert_array_equal(values, expected)
            assert values.shape == expected.shape and values.dtype.itemsize <= 4


def test_a_refusal_comes_back_on_one_line() -> None:
    assert parse_stages(encode_stages(Refusal("cut\nshort"))) == Refusal("cut short")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"failed no memory\n", "no memory"),
        (b"", "nothing"),
        (b"hello world\n", "'hello', which is no stage"),
        (b"decoded uint8 2 2 3\n12345", "buffer"),
        (b"logits float32 2", "not found"),
    ],
)
def test_what_is_no_answer_is_an_error(answer: bytes, message: str) -> None:
    with pytest.raises((RuntimeError, ValueError), match=message):
        parse_stages(answer)


def test_messages_are_read_one_by_one() -> None:
    stream = io.BytesIO()
    for content in (b"one", b"", b"x" * 70_000):
        write_message(stream, content)
    size = stream.tell()
    stream.seek(0)
    assert [read_message(stream) for _ in range(3)] == [b"one", b"", b"x" * 70_000]
    assert read_message(stream) is None
    stream.truncate(size - 1)
    stream.seek(11)
    assert read_message(stream) is None  # cut short
