"""Work on many things at once, results in order."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from edgetl.runtime.in_order import in_order


def test_results_come_in_order_and_no_more_is_taken_than_was_asked_for():
    taken = []

    def numbers():
        for number in range(20):
            taken.append(number)
            yield number

    with ThreadPoolExecutor(3) as pool, closing(in_order(pool, lambda number: number * number, numbers(), 4)) as squares:
        assert next(squares) == 0
        assert taken == [0, 1, 2, 3]
        assert list(squares) == [number * number for number in range(1, 20)]


def test_what_has_not_begun_is_dropped_when_it_is_closed():
    begun, go_on = [], threading.Event()

    def work(number):
        begun.append(number)
        if number:
            go_on.wait(10)
        return number

    with ThreadPoolExecutor(1) as pool:
        with closing(in_order(pool, work, range(6), 5)) as results:
            assert next(results) == 0
        go_on.set()
    assert begun in ([0], [0, 1])
