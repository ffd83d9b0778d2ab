"""Short digests of photos."""

from __future__ import annotations

import hashlib

import pytest

from edgetl.data.photo_digests import pack, short_digest, unpack


def digests(count: int) -> list[str]:
    return [hashlib.sha256(bytes([number])).hexdigest() for number in range(count)]


def test_eight_characters_a_photo_are_recognised_again():
    many = digests(200)
    packed = pack(many[:100])
    assert len(packed) == 800 and packed.isascii()
    known = unpack(packed)
    assert [short_digest(digest) in known for digest in many] == [True] * 100 + [False] * 100


def test_the_order_and_copies_do_not_matter():
    assert pack(digests(9)[::-1] * 2) == pack(digests(9))
    assert unpack(pack([])) == frozenset()


def test_a_text_of_another_length_is_refused():
    with pytest.raises(ValueError, match="no multiple of 8"):
        unpack(pack(digests(3))[:-1])
