"""``Executor.map`` with a limited look-ahead."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from edgetl.system.ordered_map import ordered_map


def test_results_come_in_order_and_no_more_items_are_taken_than_allowed():
    taken = []

    def numbers():
        for number in range(20):
            taken.append(number)
            yield number

    with (
        ThreadPoolExecutor(3) as pool,
        closing(ordered_map(pool, lambda number: number * number, numbers(), 4)) as squares,
    ):
        assert next(squares) == 0
        assert 1 <= len(taken) <= 4
        assert list(squares) == [number * number for number in range(1, 20)]


def test_a_result_does_not_wait_for_later_items():
    there, seen = threading.Event(), []

    def slowly():
        yield 0
        assert there.wait(10)
        time.sleep(0.1)  # until the future is done, too
        yield 1
        assert seen == [0]
        yield 2

    with ThreadPoolExecutor(1) as pool:
        for number in ordered_map(pool, lambda number: there.set() or number, slowly(), 9):
            seen.append(number)
    assert seen == [0, 1, 2]


def test_results_before_an_error_of_the_items_are_yielded():
    def broken():
        yield from range(3)
        raise ZeroDivisionError

    seen = []
    with ThreadPoolExecutor(2) as pool, pytest.raises(ZeroDivisionError):
        for number in ordered_map(pool, lambda number: number, broken(), 9):
            seen.append(number)
    assert seen == [0, 1, 2]


def test_closing_cancels_what_has_not_begun():
    begun, go_on = [], threading.Event()

    def work(number):
        begun.append(number)
        if number:
            go_on.wait(10)
        return number

    with ThreadPoolExecutor(1) as pool:
        with closing(ordered_map(pool, work, range(6), 5)) as results:
            assert next(results) == 0
        go_on.set()
    assert begun in ([0], [0, 1])
