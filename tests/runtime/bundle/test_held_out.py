from __future__ import annotations

import io
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from edgetl.errors import EdgetlError
from edgetl.runtime.bundle.held_out import HeldOut

ANSWERS = HeldOut(
    np.array([1, 0], np.int32),
    np.zeros((2, 3), np.float32),
    np.zeros((0, 4), np.float16),
    np.zeros(0, np.float32),
)


def test_the_same_answers_give_the_same_bytes_and_are_read_back() -> None:
    content = ANSWERS.to_bytes()
    assert content == ANSWERS.to_bytes()
    read = HeldOut.from_bytes(content)
    for name, values in vars(ANSWERS).items():
        assert getattr(read, name).dtype == values.dtype
        np.testing.assert_array_equal(getattr(read, name), values)


def archive(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK",
        pickle.dumps({"labels": [1]}),
        ANSWERS.to_bytes()[:-20],
        archive(labels=np.zeros(2)),
        replace(ANSWERS, logits=np.zeros((3, 3), np.float32)).to_bytes(),
        replace(ANSWERS, ood_score=np.zeros(1, np.float32)).to_bytes(),
        archive(**{**vars(ANSWERS), "labels": np.array(["a", "b"])}),
        archive(**{**vars(ANSWERS), "labels": np.array([print, None])}),
    ],
    ids=range(9),
)
def test_anything_else_is_refused(content: bytes) -> None:
    with pytest.raises(EdgetlError, match="held-out answers can't be read"):
        HeldOut.from_bytes(content)


def test_a_damaged_archive_is_refused() -> None:
    content = bytearray(ANSWERS.to_bytes())
    with zipfile.ZipFile(io.BytesIO(content)) as names:
        start = names.getinfo("logits.npy").header_offset + 60
    content[start] ^= 0xFF
    with pytest.raises(EdgetlError, match="held-out answers can't be read"):
        HeldOut.from_bytes(bytes(content))
