from __future__ import annotations

import io
import pickle
import zipfile

import numpy as np
import pytest

from edgetl.errors import EdgetlError
from edgetl.runtime.bundle import held_out
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
    np.savez(buffer, **{**vars(ANSWERS), **arrays})
    return buffer.getvalue()


def with_labels(shape: str, flags: int = 0) -> bytes:
    """An archive whose labels are said to have ``shape``, and that is encrypted for flags of 1."""
    header = f"{{'descr': '<i4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    buffer = io.BytesIO(archive())
    with zipfile.ZipFile(buffer) as names:
        entries = {name: names.read(name) for name in names.namelist()}
    entries["labels.npy"] = (
        b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    )
    changed = io.BytesIO()
    with zipfile.ZipFile(changed, "w") as names:
        for name, content in entries.items():
            names.writestr(name, content)
        for info in names.infolist():
            info.flag_bits |= flags
    return changed.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK",
        pickle.dumps({"labels": [1]}),
        ANSWERS.to_bytes()[:-20],
        archive(labels=np.zeros(2)),
        archive(logits=np.zeros((3, 3), np.float32)),
        archive(logits=np.full((2, 3), np.nan, np.float32)),
        archive(ood_score=np.zeros(1, np.float32)),
        archive(ood_score=np.zeros(2, np.float32)),
        archive(embedding=np.zeros(2, np.float16)),
        archive(labels=np.array(["a", "b"])),
        archive(labels=np.array([print, None])),
        archive(labels=np.array([0, 3], np.int32)),
        archive(labels=np.array([0, -1], np.int32)),
        archive(labels=np.zeros(1001, np.int32), logits=np.zeros((1001, 3), np.float32)),
        with_labels("(1000000000000000,)"),
        with_labels(f"({2**70},)"),
        with_labels("(2,"),
        with_labels("(2,)", flags=1),
    ],
    ids=range(19),
)
def test_anything_else_is_refused(content: bytes) -> None:
    with pytest.raises(EdgetlError, match="held-out answers can't be read"):
        HeldOut.from_bytes(content)


def test_what_unpacks_to_too_much_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_out, "_MOST_BYTES", 500)
    with pytest.raises(EdgetlError, match="too large"):
        HeldOut.from_bytes(ANSWERS.to_bytes())


def test_a_damaged_archive_is_refused() -> None:
    content = bytearray(ANSWERS.to_bytes())
    with zipfile.ZipFile(io.BytesIO(content)) as names:
        start = names.getinfo("logits.npy").header_offset + 60
    content[start] ^= 0xFF
    with pytest.raises(EdgetlError, match="held-out answers can't be read"):
        HeldOut.from_bytes(bytes(content))
