"""One predictor in many threads and processes."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers.pictures import photo

from edgetl import Predictor

PHOTOS = [photo(seed, 20 + seed, 30) for seed in range(8)]


@pytest.mark.parametrize("threads", [None, 1])
def test_threads_that_share_a_predictor_get_the_same_predictions(
    tiny_bundle: Path, threads: int | None
) -> None:
    predictor = Predictor(tiny_bundle, threads=threads)
    expected = [predictor(picture).logits.tobytes() for picture in PHOTOS]

    def classify(i: int) -> bool:
        return predictor(PHOTOS[i % 8]).logits.tobytes() == expected[i % 8]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(classify, range(1600)))


def test_several_batches_at_the_same_time(tiny_bundle: Path) -> None:
    predictor = Predictor(tiny_bundle)
    expected = [result.logits.tobytes() for result in predictor.batch(PHOTOS)]  # type: ignore[union-attr]
    with ThreadPoolExecutor(4) as pool:
        for results in pool.map(lambda _: list(predictor.batch(PHOTOS)), range(12)):
            assert [result.logits.tobytes() for result in results] == expected  # type: ignore[union-attr]


FORKED = """
import os, sys, threading
import numpy as np
from edgetl import Predictor

picture = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)
predictor = Predictor(sys.argv[1], threads=int(sys.argv[2]) or None)
expected = predictor(picture).logits.tobytes()
list(predictor.batch([picture] * 4))
for _ in range(2):
    child = os.fork()
    if child == 0:
        same = predictor(picture).logits.tobytes() == expected
        answers = predictor.batch([picture] * 4)
        same &= all(answer.logits.tobytes() == expected for answer in answers)
        os._exit(0 if same else 3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert predictor(picture).logits.tobytes() == expected, "the parent goes on"
print("whole")
"""


@pytest.mark.parametrize("threads", [0, 1, 2, 4])
def test_a_predictor_survives_a_fork(tiny_bundle: Path, threads: int) -> None:
    """A run in the child must not wait for threads that only the parent has (0: one per core)."""
    command = [sys.executable, "-W", "ignore", "-c", FORKED, tiny_bundle, str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("whole\n", "")


def classify_in_child(predictor: Predictor) -> bytes:
    return predictor(PHOTOS[0]).logits.tobytes()


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_pools_of_processes(tiny_bundle: Path, method: str) -> None:
    predictor = Predictor(tiny_bundle)
    expected = classify_in_child(predictor)
    with warnings.catch_warnings():
        # Python 3.12 rightly warns of forks in a process with threads.
        warnings.simplefilter("ignore", DeprecationWarning)
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert pool.map(classify_in_child, [predictor] * 4) == [expected] * 4


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_memory_stays_flat_over_many_predictions(tiny_bundle: Path, photo_folder: Path) -> None:
    """scripts/soak.py does the same for any length of time."""
    predictor = Predictor(tiny_bundle)
    photos = [*sorted(photo_folder.iterdir()), np.asarray(PHOTOS[0]), b"broken"]

    def classify(count: int) -> None:
        for _ in predictor.batch(photos[i % len(photos)] for i in range(count)):
            pass

    classify(500)
    before = resident_bytes()
    classify(3000)
    assert resident_bytes() <= before * 1.02


def test_the_number_of_threads_is_passed_to_the_session(tiny_bundle: Path) -> None:
    for threads in (1, 3):
        predictor = Predictor(tiny_bundle, threads=threads)
        predictor(PHOTOS[0])
        assert threads_of_sessions(predictor) == [threads]


def test_a_batch_uses_the_predictors_number_of_threads(tiny_bundle: Path) -> None:
    predictor = Predictor(tiny_bundle, threads=3)
    assert len(list(predictor.batch(PHOTOS[:4], workers=2))) == 4
    assert threads_of_sessions(predictor) == [3]


def threads_of_sessions(predictor: Predictor) -> list[int]:
    """The number of threads of each open session; a session is opened when a run needs it."""
    sessions = predictor._sessions._sessions.values()  # which are open shows nowhere else
    return [session.get_session_options().intra_op_num_threads for session in sessions]
