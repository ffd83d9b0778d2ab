"""Classify what a camera sees, and print the label when it changes.

python examples/camera.py exported/pets --source 0 --sure 0.8

--source is a camera's number, a video file or a stream's address. It needs
`pip install opencv-python-headless`, and no torch.
"""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from edgetl import Predictor

SMOOTHED = 5  # frames whose probabilities are averaged, so that one blurred frame changes nothing


def labels(capture: Any, predictor: Predictor, sure: float) -> Iterator[tuple[str, float]]:
    """(label, confidence 0..1) whenever a label becomes the surest, until the source ends.

    capture    an open cv2.VideoCapture
    predictor  loaded once, used for every frame
    sure       confidence, 0..1, below which the last label stays
    """
    recent: deque[np.ndarray] = deque(maxlen=SMOOTHED)
    shown = None
    while True:
        read, frame = capture.read()  # uint8 [H, W, 3], BGR
        if not read:
            return
        recent.append(predictor(frame[..., ::-1]).probabilities)  # as RGB
        probabilities = np.mean(recent, axis=0)
        best = int(probabilities.argmax())
        if probabilities[best] >= sure and predictor.labels[best] != shown:
            shown = predictor.labels[best]
            yield shown, float(probabilities[best])


def main() -> None:
    parser = argparse.ArgumentParser(description="Classify what a camera sees.")
    parser.add_argument("model", help="a bundle folder or a model.onnx")
    parser.add_argument("--source", default="0", help="a camera's number, or a video (default: 0)")
    parser.add_argument("--sure", type=float, default=0.8, help="least confidence, 0..1")
    arguments = parser.parse_args()
    source = int(arguments.source) if arguments.source.isdecimal() else arguments.source
    capture = cv2.VideoCapture(source)
    if not capture.isOpened():
        parser.error(f"{arguments.source} can't be opened")
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the newest frame, not one from a queue
    try:
        for label, confidence in labels(capture, Predictor(arguments.model), arguments.sure):
            print(f"{label}  {confidence:.1%}", flush=True)
    finally:
        capture.release()


if __name__ == "__main__":
    main()
