"""Photos that run together, with a function in place of the model: no GPU is needed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.pictures import photo
from helpers.services import client

from edgetl.runtime.inference.predictor import Predictor
from edgetl.serving import served_models
from edgetl.serving.photo_batches import PhotoBatches

SMALL, WIDE = np.zeros((2, 2, 3), np.uint8), np.zeros((2, 4, 3), np.uint8)


class Model:
    """Answers each photo with its name, and keeps the names of each batch."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def __call__(self, names: Sequence[str], images: np.ndarray) -> Any:
        assert images.shape[0] == len(names) and images.dtype == np.uint8
        self.batches.append(list(names))
        return list(names)


def run(use: Callable[[PhotoBatches], Coroutine[Any, Any, Any]], model: Any, **more: Any) -> Any:
    async def all_of_it() -> Any:
        return await use(PhotoBatches(model, more.get("size", 4), more.get("max_wait", 0.2)))

    return asyncio.run(all_of_it())


def test_photos_that_arrive_together_run_together() -> None:
    model = Model()

    async def use(batches: PhotoBatches) -> Any:
        return await asyncio.gather(*(batches.classify(str(i), SMALL) for i in range(3)))

    assert run(use, model) == ["0", "1", "2"]
    assert model.batches == [["0", "1", "2"]]


def test_a_full_batch_does_not_wait() -> None:
    model = Model()

    async def use(batches: PhotoBatches) -> None:
        async with asyncio.timeout(30):
            await asyncio.gather(*(batches.classify(str(i), SMALL) for i in range(8)))

    run(use, model, max_wait=1000)
    assert model.batches == [["0", "1", "2", "3"], ["4", "5", "6", "7"]]


def test_one_alone_runs_after_the_wait() -> None:
    model = Model()
    assert run(lambda batches: batches.classify("a", SMALL), model, max_wait=0.01) == "a"
    assert run(lambda batches: batches.classify("b", SMALL), model, max_wait=0) == "b"


def test_each_shape_has_batches_of_its_own() -> None:
    model = Model()

    async def use(batches: PhotoBatches) -> Any:
        photos = [("a", SMALL), ("b", WIDE), ("c", SMALL), ("d", WIDE)]
        return await asyncio.gather(*(batches.classify(*each) for each in photos))

    assert run(use, model, max_wait=0.01) == ["a", "b", "c", "d"]
    assert model.batches == [["a", "c"], ["b", "d"]]


def test_while_one_runs_the_next_one_gathers() -> None:
    go, model = threading.Event(), Model()

    def slow(names: Sequence[str], images: np.ndarray) -> Any:
        assert go.wait(30)
        return model(names, images)

    async def use(batches: PhotoBatches) -> None:
        first = asyncio.ensure_future(batches.classify("a", SMALL))
        await asyncio.sleep(0.05)
        rest = [asyncio.ensure_future(batches.classify(name, SMALL)) for name in "bcd"]
        await asyncio.sleep(0.05)
        go.set()
        await asyncio.gather(first, *rest)

    run(use, slow, max_wait=0)
    assert model.batches == [["a"], ["b", "c", "d"]]


def test_who_has_gone_is_left_out() -> None:
    model = Model()

    async def use(batches: PhotoBatches) -> Any:
        tasks = [asyncio.ensure_future(batches.classify(name, SMALL)) for name in "abc"]
        await asyncio.sleep(0)
        tasks[0].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    cancelled, *others = run(use, model, max_wait=0.05)
    assert isinstance(cancelled, asyncio.CancelledError) and others == ["b", "c"]
    assert model.batches == [["b", "c"]]


def test_a_failure_is_told_to_each_and_the_next_batch_runs() -> None:
    model = Model()

    def fails_once(names: Sequence[str], images: np.ndarray) -> Any:
        if not model.batches:
            model.batches.append([])
            raise RuntimeError("out of memory")
        return model(names, images)

    async def use(batches: PhotoBatches) -> Any:
        asked = (batches.classify(name, SMALL) for name in "ab")
        failed = await asyncio.gather(*asked, return_exceptions=True)
        return failed, await batches.classify("c", SMALL)

    failed, answer = run(use, fails_once, max_wait=0.01)
    assert [str(error) for error in failed] == ["out of memory"] * 2
    assert answer == "c"


def test_a_service_on_a_gpu_gives_the_answers_of_the_predictor(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CPU stands for the GPU."""
    predictor = Predictor(tiny_bundle)
    shapes = []
    predict_stack = Predictor.predict_stack

    def watched(self: Predictor, names: Sequence[str], images: np.ndarray, *more: Any) -> Any:
        shapes.append(images.shape[0])
        return predict_stack(self, names, images, *more)

    monkeypatch.setattr(Predictor, "provider", "CUDAExecutionProvider")
    monkeypatch.setattr(Predictor, "predict_stack", watched)
    monkeypatch.setattr(served_models, "GPU_BATCH", 5)
    pictures = np.stack([np.asarray(photo(seed, 30, 20)) for seed in range(5)])
    tensor = {"name": "images", "datatype": "UINT8", "shape": list(pictures.shape)}
    with client(tiny_bundle, max_wait=100) as found:
        shapes.clear()
        body = {"inputs": [{**tensor, "data": pictures.reshape(-1).tolist()}]}
        outputs = found.post("/v2/models/tiny/infer", json=body).json()["outputs"]
        assert shapes == [5]
        assert found.post("/predict", content=b"no photo").status_code == 422
    expected = [predictor(picture) for picture in pictures]
    assert outputs[2]["data"] == [each.label for each in expected]
    assert np.allclose(outputs[1]["data"], np.concatenate([each.logits for each in expected]))
