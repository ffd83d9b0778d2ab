"""A script that runs a TorchScript file for another process, where edgetl can't be imported.

    python -P fresh_worker.py MODEL FOLDER THREADS OUTPUTS

For each line of stdin, a count n, it runs FOLDER/0.npy … n−1.npy (uint8 [H, W, 3]), writes
FOLDER/0.resized.npy and so on, with the names OUTPUTS for what the model returns, and prints one
line of JSON: "error" is null or the reason why it failed, "disk" whether reading or writing the
files did.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PREPROCESSING = ("resized", "normalized")


def stages(torch: Any, module: Any, pixels: Any, outputs: Sequence[str]) -> dict[str, Any]:
    """uint8 [H, W, 3] → the named stages as arrays, without a batch axis."""
    with torch.inference_mode():
        images = torch.from_numpy(pixels)[None]
        resized = module.preprocess.resize(images)
        values = (resized, module.preprocess.normalize(resized), *module(images))
        named = zip((*PREPROCESSING, *outputs), values, strict=True)
        return {stage: value[0].numpy() for stage, value in named}


def main(model: str, folder: str, threads: str, *outputs: str) -> None:
    sys.modules["edgetl"] = None  # type: ignore[assignment]  # makes importing it raise
    import warnings

    import numpy as np
    import torch

    warnings.simplefilter("ignore")  # stderr is for errors only
    torch.set_num_threads(int(threads))
    module = torch.jit.load(model, map_location="cpu")
    for line in sys.stdin:
        error, disk = None, False
        try:
            for index in range(int(line)):
                values = stages(torch, module, np.load(Path(folder, f"{index}.npy")), outputs)
                for stage, value in values.items():
                    np.save(Path(folder, f"{index}.{stage}.npy"), value)
        except Exception as problem:
            error = f"{type(problem).__name__}: {problem}"
            disk = isinstance(problem, OSError)  # the network itself opens no files
        print(json.dumps({"error": error, "disk": disk}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
