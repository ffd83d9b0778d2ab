"""Try settings of the ``full`` strategy: accuracy and time of each, over seeds, as a table.

Example:
    python scripts/experiment_full.py DATA --seeds 3
    python scripts/experiment_full.py DATA --only base "lr 2e-4" --seeds 5 --given epochs=20

DATA is a folder as for ``edgetl train``. Each setting is judged on the validation photos at the end
of training, with the weights that the run kept; the spread over seeds tells which differences
are meaningful.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

SETTINGS: dict[str, dict[str, Any]] = {
    "head only": {"strategy": "features"},
    "base": {},
    "lr 1e-4": {"lr": 1e-4},
    "lr 2e-4": {"lr": 2e-4},
    "lr 1e-3": {"lr": 1e-3},
    "lr 2e-3": {"lr": 2e-3},
    "layer decay 0.02": {"layer_decay": 0.02},
    "layer decay 0.4": {"layer_decay": 0.4},
    "layer decay 1": {"layer_decay": 1.0},
    "norm statistics": {"norm_statistics": True},
    "no ema": {"ema": 0.0},
    "ema 0.98": {"ema": 0.98},
    "no smoothing": {"label_smoothing": 0.0},
    "stronger views": {"scale": (0.5, 1.0), "rotation": 10.0, "colour": 0.2},
    "mirrored only": {
        "scale": (0.999, 1.0),
        "ratio": (0.999, 1.001),
        "rotation": 0.0,
        "colour": 0.0,
    },
    "mixup 0.2": {"mixup": 0.2},
    "cutmix 1": {"cutmix": 1.0},
    "20 epochs": {"epochs": 20},
    "6 epochs": {"epochs": 6},
    "random head": {"warm_head": False},
    "last 4 blocks": {"strategy": "last-blocks", "blocks": 4},
}


def run(data: Path, given: dict[str, Any], seed: int) -> tuple[float, float, float]:
    """(accuracy in %, loss in nats, seconds) of one training run."""
    from edgetl.training.engine.train_run import train

    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        outcome = train(data, Path(folder) / "run", **{"strategy": "full", **given, "seed": seed})
    if not outcome.finished:
        sys.exit("Interrupted.")
    metrics = outcome.metrics
    return 100 * metrics["accuracy"], metrics["loss"], time.perf_counter() - began


def row(name: str, results: list[tuple[float, float, float]]) -> str:
    accuracy, loss, seconds = np.array(results).T
    spread = accuracy.std(ddof=1) if len(accuracy) > 1 else float("nan")
    figures = (
        f"{accuracy.mean():6.2f} ± {spread:4.2f}   {loss.mean():.4f}   {np.median(seconds):6.1f}"
    )
    return f"{name:20s} {figures}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="+", help="one data folder or several")
    parser.add_argument("--seeds", type=int, default=2, help="runs of each setting")
    parser.add_argument(
        "--only", nargs="+", choices=SETTINGS, default=list(SETTINGS), help="settings to try"
    )
    parser.add_argument(
        "--given", nargs="*", default=[], help="field=value for all of them, values as JSON"
    )
    arguments = parser.parse_args()
    common = {
        name: json.loads(value) for name, value in (pair.split("=", 1) for pair in arguments.given)
    }
    for data in arguments.data:
        print(f"\n{data}\n{'setting':20s} accuracy, %     loss     seconds", flush=True)
        for name in arguments.only:
            given = {
                **({} if SETTINGS[name].get("strategy") == "features" else common),
                **SETTINGS[name],
            }
            results = [run(data, given, seed) for seed in range(arguments.seeds)]
            print(row(name, results), flush=True)


if __name__ == "__main__":
    main()
