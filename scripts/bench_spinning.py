"""What it costs that the threads inside a run of the model spin while they wait, and what it gains.

python scripts/bench_spinning.py exported/pets
python scripts/bench_spinning.py exported/pets --precision int8 --situation busy

Each alternative is a predictor of its own; they take turns in blocks of photos, so that other
programs disturb all of them alike. The ratios are to the first one, of the same run. Situations:

quiet   the fastest block counts, which others disturbed least. On Linux, `sudo chrt -f 10` before
        the command lets it run before all other programs where they can't be stopped
busy    as many other processes as there are cores compute all the time: the middle block counts
beside  before each photo, a session with onnxruntime's own settings runs in the same process, as
        in a program with two models: the fastest block counts
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from edgetl import Predictor
from edgetl.runtime.inference import session as session_module
from edgetl.runtime.inference.benchmark import machine
from edgetl.system.machine import cores

ALLOW, STOP = "session.intra_op.allow_spinning", "session.force_spinning_stop"
DURATION = "session.intra_op.spin_duration_us"  # ignored before onnxruntime 1.26
EDGETL = "edgetl's own (20 us)"
ALTERNATIVES: Mapping[str, Mapping[str, str]] = {
    "onnxruntime's own": {},
    "the same, stop after a run": {STOP: "1"},
    "spin for 200 us": {STOP: "1", DURATION: "200"},
    "spin for 5 us": {STOP: "1", DURATION: "5"},
    "don't spin": {ALLOW: "0"},
}
SITUATIONS = ("quiet", "busy", "beside")
PHOTOS = 8  # in a block
PAUSE = 0.2  # seconds before a block: the threads of the one before may still spin
Run = Callable[[], Any]


def predictor_with(entries: Mapping[str, str], bundle: Path, **options: Any) -> Predictor:
    """A predictor whose session has these entries, and none of edgetl's own."""

    def session_options(ort: Any, *_: Any) -> Any:
        chosen = ort.SessionOptions()
        for name, value in entries.items():
            chosen.add_session_config_entry(name, value)
        return chosen

    with patch.object(session_module, "_session_options", session_options):
        return Predictor(bundle, **options)


@contextmanager
def other_processes(count: int) -> Iterator[None]:
    """So many processes that compute all the time."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: 1"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def blocks(runs: Mapping[str, Run], count: int, *, between: Run) -> dict[str, list[float]]:
    """Milliseconds per photo of each alternative, in each of ``count`` blocks, without warm-up.

    between  called before each photo, and not timed
    """
    found: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(count + 1):
        for name, run in runs.items():
            spent = 0.0
            time.sleep(PAUSE)
            for _ in range(PHOTOS):
                between()
                start = time.perf_counter()
                run()
                spent += time.perf_counter() - start
            if number:
                found[name].append(1000 * spent / PHOTOS)
    return found


def measure(situation: str, runs: Mapping[str, Run], count: int, plain: Run) -> None:
    """Print a row for each alternative."""
    if situation == "busy":
        with other_processes(cores()):
            found = blocks(runs, count, between=lambda: None)
    else:
        found = blocks(runs, count, between=plain if situation == "beside" else lambda: None)
    pick = statistics.median if situation == "busy" else min
    figures = {name: pick(values) for name, values in found.items()}
    for name, figure in figures.items():
        ratio = figure / figures[EDGETL]
        print(f"{situation:<8}{name:<28}{figure:>9.2f} ms {ratio:>7.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--precision")
    parser.add_argument("--situation", action="append", choices=SITUATIONS, help="default: all")
    parser.add_argument("--blocks", type=int, default=30, help="for each alternative")
    arguments = parser.parse_args()
    options = {"providers": "cpu", "precision": arguments.precision}
    predictors = {EDGETL: Predictor(arguments.bundle, **options)}
    for name, entries in ALTERNATIVES.items():
        predictors[name] = predictor_with(entries, arguments.bundle, **options)
    predictors["one thread"] = Predictor(arguments.bundle, threads=1, **options)
    plain = predictor_with({}, arguments.bundle, **options)
    print(json.dumps({**machine(plain), "load": os.getloadavg()[0]}))
    height, width = plain.card.spec.output_size(256, 256)
    noise = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)

    def run_of(predictor: Predictor) -> Run:
        return lambda: predictor.run_model(noise)

    runs = {name: run_of(predictor) for name, predictor in predictors.items()}
    require_same_bits([run()[1] for run in runs.values()])
    for situation in arguments.situation or SITUATIONS:
        measure(situation, runs, arguments.blocks, run_of(plain))


def require_same_bits(answers: Sequence[NDArray[np.float32]]) -> None:
    """Spinning is about time: it must not change an answer."""
    if any(answer.tobytes() != answers[0].tobytes() for answer in answers):
        raise SystemExit("The alternatives give different bits.")


if __name__ == "__main__":
    main()
