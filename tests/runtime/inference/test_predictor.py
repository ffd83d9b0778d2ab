"""The predictor: predictions from every kind of source, single and in batches, and its errors."""

from __future__ import annotations

import gc
import json
import pickle
import shutil
import weakref
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import tiny_bundle
from helpers.pictures import photo
from PIL import Image

from edgetl import Prediction, Predictor
from edgetl.cli.main import command as program
from edgetl.errors import (
    BundleError,
    ImageError,
    MissingDependencyError,
    PredictionError,
    RuntimeUnavailableError,
)
from edgetl.runtime.inference.session import open_session


@pytest.fixture(scope="module")
def predictor(tiny_bundle: Path) -> Predictor:
    return Predictor(tiny_bundle)


def encoded(image: Image.Image, format_name: str = "PNG") -> bytes:
    file = BytesIO()
    image.save(file, format_name)
    return file.getvalue()


@pytest.mark.parametrize(
    ("width", "height"), [(40, 30), (30, 40), (12, 12), (1, 1), (3, 200), (500, 400)]
)
@pytest.mark.parametrize("spec", [tiny_bundle.CROPPED, tiny_bundle.SQUASHED])
def test_predictions_equal_the_reference(
    spec: object, width: int, height: int, tmp_path: Path
) -> None:
    card = tiny_bundle.card(spec)  # type: ignore[arg-type]
    predictor = Predictor(tiny_bundle.write(tmp_path / "bundle", card))
    picture = photo(5, width, height)
    logits, probabilities = tiny_bundle.answer(np.asarray(picture), card)
    prediction = predictor(encoded(picture))
    np.testing.assert_allclose(prediction.logits, logits, atol=1e-4)
    np.testing.assert_allclose(prediction.probabilities, probabilities, atol=1e-5)
    assert prediction.index == int(np.argmax(probabilities))
    assert prediction.label == tiny_bundle.ODD_LABELS[prediction.index]
    assert prediction.confidence == pytest.approx(probabilities.max(), abs=1e-5)


def test_the_attributes_of_a_prediction(predictor: Predictor, tmp_path: Path) -> None:
    path = tmp_path / "花, 1.png"
    photo(1).save(path)
    prediction = predictor(path)
    assert prediction.source == str(path)
    assert prediction.labels == predictor.labels == tiny_bundle.ODD_LABELS
    assert prediction.probabilities.dtype == prediction.logits.dtype == np.float32
    assert prediction.probabilities.sum() == pytest.approx(1, abs=1e-6)
    assert isinstance(prediction.confidence, float)
    best = prediction.top(3)
    assert best[0] == (prediction.label, prediction.confidence)
    assert [score.confidence for score in best] == sorted(
        (s.confidence for s in prediction.top(99)), reverse=True
    )[:3]
    assert len(prediction.top(99)) == 5
    assert {score.label for score in prediction.top(99)} == set(tiny_bundle.ODD_LABELS)
    assert prediction.top(0) == []
    confidence = f"confidence={prediction.confidence:.4f}"
    assert (
        repr(prediction) == f"Prediction({str(path)!r}, label={prediction.label!r}, {confidence})"
    )
    assert "tiny" in repr(predictor)
    assert "5 classes" in repr(predictor)


def test_of_equal_probabilities_the_first_class_wins() -> None:
    tie = np.array([0.2, 0.4, 0.4], np.float32)
    prediction = Prediction("x", ("a", "b", "c"), tie, tie)
    assert prediction.label == "b"
    assert [score.label for score in prediction.top(3)] == ["b", "c", "a"]


def test_every_kind_of_source_gives_the_same_prediction(
    predictor: Predictor, tmp_path: Path
) -> None:
    picture = photo(3)
    path = tmp_path / "a.png"
    picture.save(path)
    expected = predictor(path).logits
    for source in (
        str(path),
        path.read_bytes(),
        BytesIO(path.read_bytes()),
        picture,
        np.asarray(picture),
    ):
        np.testing.assert_array_equal(predictor(source).logits, expected)


def test_a_bundle_and_its_lone_model_give_the_same_prediction(
    predictor: Predictor, tiny_bundle: Path, tmp_path: Path
) -> None:
    lone = tmp_path / "renamed.bin"
    lone.write_bytes((tiny_bundle / "model.onnx").read_bytes())
    alone = Predictor(lone)
    assert alone.bundle is None
    assert alone.card == predictor.card
    np.testing.assert_array_equal(alone(photo(1)).logits, predictor(photo(1)).logits)


def mixed_sources() -> list[object]:
    """Photos of many shapes, with sources that can't be read between them."""
    sources: list[object] = [photo(i, 20 + 7 * i, 60 - i) for i in range(12)]
    sources[2:2] = ["/no/such.jpg", b"", encoded(photo(1))[:200]]
    sources[8:8] = [np.zeros((3, 3), np.float32), None, 7]
    return sources


@pytest.mark.parametrize("workers", [None, 1, 2, 5])
def test_a_batch_gives_the_same_results_as_single_calls(
    predictor: Predictor, workers: int | None
) -> None:
    sources = mixed_sources()
    results = list(predictor.batch(sources, workers=workers))  # type: ignore[arg-type]
    assert len(results) == len(sources)
    for source, result in zip(sources, results, strict=True):
        if isinstance(result, ImageError):
            with pytest.raises(ImageError) as caught:
                predictor(source)  # type: ignore[arg-type]
            assert str(caught.value) == str(result)
        else:
            single = predictor(source)  # type: ignore[arg-type]
            assert single.source == result.source
            np.testing.assert_allclose(single.logits, result.logits, atol=1e-5)
    assert sum(isinstance(result, ImageError) for result in results) == 6


def test_photos_stacked_into_one_run_give_the_same_predictions(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU."""
    monkeypatch.setattr(Predictor, "provider", "CUDAExecutionProvider")
    sources = mixed_sources()
    for source, result in zip(sources, predictor.batch(sources), strict=True):  # type: ignore[arg-type]
        if isinstance(result, Prediction):
            np.testing.assert_allclose(predictor(source).logits, result.logits, atol=1e-5)  # type: ignore[arg-type]


def test_a_batch_takes_sources_only_as_it_needs_them(predictor: Predictor) -> None:
    taken = 0

    def endless() -> Iterator[Image.Image]:
        nonlocal taken
        while True:
            taken += 1
            yield photo(1, 12, 12)

    results = predictor.batch(endless(), workers=2)
    for _ in range(5):
        assert isinstance(next(results), Prediction)
    results.close()
    assert taken < 20


def test_an_empty_batch_is_empty(predictor: Predictor) -> None:
    assert list(predictor.batch([])) == []


def test_an_error_in_the_iterable_of_sources_is_raised(predictor: Predictor) -> None:
    def failing() -> Iterator[Image.Image]:
        yield photo(1)
        raise ValueError("from the caller")

    with pytest.raises(ValueError, match="from the caller"):
        list(predictor.batch(failing()))


def test_max_pixels_limits_what_is_decoded(tiny_bundle: Path) -> None:
    small = Predictor(tiny_bundle, max_pixels=100)
    with pytest.raises(ImageError, match="the limit is 100"):
        small(photo(1, 20, 6))
    assert isinstance(small(photo(1, 20, 5)), Prediction)
    assert [type(result) for result in small.batch([photo(1, 20, 6), photo(1, 20, 5)])] == [
        ImageError,
        Prediction,
    ]


def test_max_pixels_limits_the_resize(tiny_bundle: Path) -> None:
    thin = Image.new("L", (1, 30_000))
    size = Predictor(tiny_bundle).card.spec.resized_size(thin.height, thin.width)
    takes = size[1] * max(size[0], thin.height)
    assert isinstance(Predictor(tiny_bundle, max_pixels=takes)(thin), Prediction)
    assert takes > 1_000_000
    with pytest.raises(ImageError, match=f"takes {takes:,} pixels; the limit is {takes - 1:,}"):
        Predictor(tiny_bundle, max_pixels=takes - 1)(thin)


def test_the_error_for_a_photo_too_thin_to_resize_names_it(
    predictor: Predictor, tmp_path: Path
) -> None:
    path = tmp_path / "thin.png"
    Image.new("L", (1, 3_000_000)).save(path)
    with pytest.raises(ImageError, match=r"thin\.png: resizing 1×3000000"):
        predictor(path)


def test_nan_outputs_are_a_prediction_error(tmp_path: Path) -> None:
    import onnx

    model = onnx.load_model_from_string(tiny_bundle.onnx_bytes(tiny_bundle.card()))
    bias = next(value for value in model.graph.initializer if value.name == "bias")
    bias.raw_data = np.full(3, np.nan, np.float32).tobytes()
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    broken = Predictor(tmp_path / "m.onnx")
    photo(1).save(tmp_path / "1.png")
    with pytest.raises(PredictionError, match="are not finite numbers") as caught:
        broken(tmp_path / "1.png")
    assert (caught.value.source, caught.value.path) == (str(tmp_path / "1.png"), broken.path)
    assert isinstance(caught.value, BundleError), "as before there was a PredictionError"
    results = list(broken.batch([tmp_path / "1.png", b""]))
    assert [type(result) for result in results] == [PredictionError, ImageError]
    assert str(results[0]) == str(caught.value)
    assert str(pickle.loads(pickle.dumps(results[0]))) == str(caught.value)


def test_a_run_that_fails_is_a_prediction_error_for_each_of_its_photos(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise BundleError(predictor.path, "the model failed: out of memory")

    monkeypatch.setattr(predictor, "run_outputs", fail)
    results = list(predictor.batch([photo(1), b"", photo(2)]))
    assert [type(result) for result in results] == [PredictionError, ImageError, PredictionError]
    with pytest.raises(PredictionError, match="the model failed: out of memory"):
        predictor(photo(1))


def test_one_failed_photo_of_a_stack_does_not_fail_the_others(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Predictor, "provider", "CUDAExecutionProvider")
    plain = Predictor.run_outputs

    def broken(
        self: Predictor, images: np.ndarray, *, threads: int | None = None
    ) -> dict[str, np.ndarray]:
        outputs = plain(self, images, threads=threads)
        outputs["logits"][1] = np.inf
        return outputs

    monkeypatch.setattr(Predictor, "run_outputs", broken)
    results = list(predictor.batch([photo(seed) for seed in range(4)], workers=1))
    kinds = [type(result) for result in results]
    assert kinds == [Prediction, PredictionError, Prediction, Prediction]


def test_a_lone_model_that_was_replaced_is_not_mixed_with_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(tiny_bundle.onnx_bytes(tiny_bundle.card()))
    predictor = Predictor(path)
    path.write_bytes(tiny_bundle.onnx_bytes(tiny_bundle.card(), seed=1))
    assert isinstance(predictor(photo(1)), Prediction), "the loaded model still works"
    with pytest.raises(BundleError, match="it was replaced after it was loaded"):
        list(predictor.batch([photo(1), photo(2)]))
    with pytest.raises(BundleError, match="it was replaced after it was loaded"):
        predictor.model_id  # noqa: B018


def test_a_model_that_can_not_be_opened_again_is_no_failure_of_the_photo(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(tiny_bundle.onnx_bytes(tiny_bundle.card()))
    predictor = Predictor(path)
    path.write_bytes(tiny_bundle.onnx_bytes(tiny_bundle.card(), seed=1))
    predictor.threads = 2  # a number of threads for which no session is open yet
    with pytest.raises(BundleError, match="it was replaced") as caught:
        predictor(photo(1))
    assert not isinstance(caught.value, PredictionError)


def test_a_bundle_damaged_after_loading_is_one_error_not_one_per_photo(bundle_copy: Path) -> None:
    predictor = Predictor(bundle_copy)
    (bundle_copy / "model.onnx").write_bytes(b"other")
    with pytest.raises(BundleError):
        list(predictor.batch([photo(1), photo(2)], workers=2))


# Providers and threads.


@pytest.mark.parametrize(
    "providers", ["cpu", "CPUExecutionProvider", "CPU", ["cpu"], "auto", ["CPU", "cpu"]]
)
def test_every_way_to_name_the_cpu(tiny_bundle: Path, providers: str | list[str]) -> None:
    assert isinstance(Predictor(tiny_bundle, providers=providers)(photo(1)), Prediction)


@pytest.mark.parametrize("providers", [["cpu", 3], [("CPUExecutionProvider", {})]])
def test_providers_must_be_names(tiny_bundle: Path, providers: list[Any]) -> None:
    with pytest.raises(TypeError, match="providers are names"):
        Predictor(tiny_bundle, providers=providers)


@pytest.mark.parametrize("providers", ["cuda", "tpu", ["cuda", "cpu"], [], ["cpu", "nothing"], ""])
def test_the_error_for_a_missing_provider_lists_the_available_ones(
    tiny_bundle: Path, providers: str | list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(RuntimeUnavailableError, match="not in the installed onnxruntime") as caught:
        Predictor(tiny_bundle, providers=providers)
    assert caught.value.hint == "Available here: auto, cpu."


def test_cuda_that_does_not_start_is_an_error_unless_auto(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "onnxruntime.get_available_providers",
        lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
    )
    monkeypatch.setattr("onnxruntime.InferenceSession", _session_that_falls_back)
    with pytest.raises(
        RuntimeUnavailableError, match="could not start it and would run on CPUExecutionProvider"
    ):
        Predictor(tiny_bundle, providers="cuda")
    assert isinstance(Predictor(tiny_bundle)(photo(1)), Prediction)


@pytest.mark.parametrize("kind", [RuntimeError, ValueError])
def test_cuda_that_raises_at_start_prints_nothing_to_stdout(
    tiny_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: type[Exception],
) -> None:
    import onnxruntime

    create = onnxruntime.InferenceSession._create_inference_session

    def fail(session: object, providers: list[object], *more: object) -> None:
        if len(providers) > 1:
            raise kind("no driver")
        create(session, providers, *more)

    monkeypatch.setattr(
        "onnxruntime.get_available_providers",
        lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
    )
    monkeypatch.setattr("onnxruntime.InferenceSession._create_inference_session", fail)
    with pytest.raises(RuntimeUnavailableError, match="would run on CPUExecutionProvider"):
        Predictor(tiny_bundle, providers="cuda")
    assert isinstance(Predictor(tiny_bundle)(photo(1)), Prediction)
    assert capsys.readouterr().out == ""


def test_preloading_cuda_prints_nothing_to_stdout(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "onnxruntime.get_available_providers",
        lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
    )
    looked = []
    monkeypatch.setattr(
        "onnxruntime.preload_dlls",
        lambda: looked.append(print("Failed to load libcublas")),
        raising=False,
    )
    monkeypatch.setattr("onnxruntime.InferenceSession", _session_that_falls_back)
    Predictor(tiny_bundle)
    assert len(looked) == 1 and capsys.readouterr().out == ""


def test_cuda_uses_tf32_only_if_asked(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[object]] = []

    def record(model: bytes, options: object, providers: list[object], **more: object) -> object:
        given.append(providers)
        return _session_that_falls_back(model, options, providers, **more)

    monkeypatch.setattr(
        "onnxruntime.get_available_providers",
        lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
    )
    monkeypatch.setattr("onnxruntime.InferenceSession", record)
    Predictor(tiny_bundle)
    open_session(tiny_bundle / "model.onnx", tf32=True)
    assert given == [
        [("CUDAExecutionProvider", {"use_tf32": tf32}), "CPUExecutionProvider"] for tf32 in (0, 1)
    ]


def _session_that_falls_back(
    model: bytes, options: object, providers: list[object], **_: object
) -> object:
    """Falls back to the CPU, as onnxruntime-gpu does on a machine without a driver."""
    import onnxruntime

    return onnxruntime.capi.onnxruntime_inference_collection.InferenceSession(
        model, options, providers=["CPUExecutionProvider"]
    )


def test_numbers_of_threads_give_the_same_predictions(
    tiny_bundle: Path, predictor: Predictor
) -> None:
    for threads in (1, 2, 4):
        np.testing.assert_allclose(
            Predictor(tiny_bundle, threads=threads)(photo(1)).logits,
            predictor(photo(1)).logits,
            atol=1e-5,
        )


@pytest.mark.parametrize("number", [0, -1, 1.5, "2"])
def test_impossible_numbers_are_refused(
    tiny_bundle: Path, predictor: Predictor, number: Any
) -> None:
    with pytest.raises(ValueError, match=f"threads is {number!r}"):
        Predictor(tiny_bundle, threads=number)
    with pytest.raises(ValueError, match=f"max_pixels is {number!r}"):
        Predictor(tiny_bundle, max_pixels=number)
    with pytest.raises(ValueError, match=f"workers is {number!r}"):
        predictor.batch([], workers=number)


def test_an_empty_model_path_is_not_the_current_folder(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_bundle)
    with pytest.raises(ValueError, match="model is empty"):
        Predictor("")


def test_max_pixels_can_not_be_none(tiny_bundle: Path) -> None:
    with pytest.raises(ValueError, match="max_pixels is None; it must be a whole number"):
        Predictor(tiny_bundle, max_pixels=None)  # type: ignore[arg-type]


def test_without_onnxruntime_the_error_gives_the_install_command(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "edgetl\[cpu\]"'):
        Predictor(tiny_bundle)


def test_a_predictor_can_be_pickled(predictor: Predictor) -> None:
    copy = pickle.loads(pickle.dumps(predictor))
    np.testing.assert_array_equal(copy(photo(1)).logits, predictor(photo(1)).logits)


def test_a_predictor_survives_a_change_of_the_current_folder(
    bundle_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bundle_copy.parent)
    models = [Predictor(bundle_copy.name), Predictor(f"{bundle_copy.name}/model.onnx")]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    photos = [np.zeros((40, 40, 3), np.uint8)] * 3
    for model in models:
        assert all(isinstance(answer, Prediction) for answer in model.batch(photos, workers=2))
        assert pickle.loads(pickle.dumps(model)).labels == model.labels


@pytest.mark.parametrize(
    "one",
    [
        "photo.jpg",
        b"bytes",
        Path("photo.jpg"),
        bytearray(9),
        np.zeros((32, 32, 3), np.uint8),
        BytesIO(b"a\nb"),
    ],
)
def test_batch_refuses_a_single_photo(predictor: Predictor, one: object) -> None:
    with pytest.raises(TypeError, match="many photos"):
        predictor.batch(one)  # type: ignore[arg-type]


def test_a_lone_model_has_no_choice_of_precision(tiny_bundle: Path) -> None:
    with pytest.raises(BundleError, match="one precision only"):
        Predictor(tiny_bundle / "model.onnx", precision="int8")


def test_a_replaced_bundle_and_a_damaged_one_give_different_errors(
    bundle_copy: Path, tmp_path: Path
) -> None:
    predictor = Predictor(bundle_copy)
    (bundle_copy / "model.onnx").write_bytes(b"damaged")
    with pytest.raises(BundleError, match="7 bytes"):
        list(predictor.batch([photo(1)] * 4, workers=2))
    shutil.rmtree(bundle_copy)
    tiny_bundle.write(bundle_copy, tiny_bundle.card(temperature=3.0))
    with pytest.raises(BundleError, match="it was replaced after it was loaded"):
        list(predictor.batch([photo(1)] * 4, workers=2))


def test_a_prediction_as_json_values_is_what_the_command_prints(tiny_bundle, photo_folder):
    path = sorted(photo_folder.iterdir())[0]
    prediction = Predictor(tiny_bundle)(path)
    for options, top in (([], None), (["--top", "2"], 2)):
        command = ["predict", str(tiny_bundle), str(path), "--json", *options]
        printed = json.loads(CliRunner().invoke(program, command).stdout)
        values = prediction.to_dict(top)
        assert json.loads(json.dumps(values)) == printed == values
        assert list(values) == ["source", "label", "confidence", "probabilities"]
        assert len(values["probabilities"]) == (top or 5)


def test_errors_among_results_do_not_hold_the_predictor(tiny_bundle: Path) -> None:
    predictor = Predictor(tiny_bundle)
    reference = weakref.ref(predictor)
    gc.disable()  # which would free what circles of references hold
    try:
        failures = list(predictor.batch([b"no photo"] * 3))
        del predictor
        assert all(isinstance(failure, ImageError) for failure in failures)
        assert reference() is None
    finally:
        gc.enable()
