"""Items made ahead in a thread."""

from __future__ import annotations

import pytest

from edgetl.training.input.prefetch import prefetched


def test_prefetched_items_come_in_order_and_errors_after_them():
    def items():
        yield from range(5)
        raise ValueError("broken")

    seen = []
    with pytest.raises(ValueError, match="broken"):
        for item in prefetched(items(), 2):
            seen.append(item)
    assert seen == list(range(5))


def test_prefetching_ends_when_the_iterator_is_closed():
    def endless():
        while True:
            yield 1

    stream = prefetched(endless(), 2)
    assert next(stream) == 1
    stream.close()
