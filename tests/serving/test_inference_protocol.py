"""The Open Inference Protocol, spoken by Triton's own client and by hand."""

from __future__ import annotations

import base64
import gzip
import io
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from helpers.pictures import photo
from helpers.services import Scripted, service
from helpers.services import client as service_client
from starlette.testclient import TestClient
from tritonclient.utils import InferenceServerException

from edgetl import Predictor
from edgetl._version import __version__
from edgetl.runtime.bundle.unknown_limits import UnknownLimits
from edgetl.runtime.inference.prediction import Prediction
from edgetl.serving.inference_tensors import InferenceError, read_request

PICTURES = [photo(seed, 50, 40) for seed in range(3)]
PIXELS = np.stack([np.asarray(picture) for picture in PICTURES])


def encoded(picture: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


PNGS = [encoded(picture) for picture in PICTURES]


@pytest.fixture(scope="module")
def running(tiny_bundle: Path) -> Iterator[triton.InferenceServerClient]:
    """Triton's client of a service in a process of its own."""
    with (
        service(tiny_bundle) as (address, _),
        triton.InferenceServerClient(address.removeprefix("http://")) as found,
    ):
        yield found


@pytest.fixture(scope="module")
def plain(tiny_bundle: Path) -> Iterator[TestClient]:
    with service_client(tiny_bundle) as found:
        yield found


@pytest.fixture(scope="module")
def predictor(tiny_bundle: Path) -> Predictor:
    return Predictor(tiny_bundle, threads=1)


def given(name: str, count: int, binary: bool, column: bool) -> triton.InferInput:
    if name == "images":
        tensor = triton.InferInput("images", list(PIXELS[:count].shape), "UINT8")
        return tensor.set_data_from_numpy(PIXELS[:count], binary_data=binary)
    photos = PNGS[:count] if binary else [base64.b64encode(png) for png in PNGS[:count]]
    values = np.array(photos, object).reshape((count, 1) if column else (count,))
    tensor = triton.InferInput("image", list(values.shape), "BYTES")
    return tensor.set_data_from_numpy(values, binary_data=binary)


def test_health_and_metadata(running: triton.InferenceServerClient, predictor: Predictor) -> None:
    assert running.is_server_live() and running.is_server_ready()
    assert running.is_model_ready("tiny") and running.is_model_ready("tiny", predictor.model_id)
    assert not running.is_model_ready("dog") and not running.is_model_ready("tiny", "1")
    server = running.get_server_metadata()
    assert (server["name"], server["version"]) == ("edgetl", __version__)
    assert "binary_tensor_data" in server["extensions"]
    model = running.get_model_metadata("tiny")
    assert model["name"] == "tiny" and model["versions"] == [predictor.model_id]
    assert model["labels"] == list(predictor.labels)
    assert {tensor["name"]: tensor["datatype"] for tensor in model["inputs"]} == {
        "image": "BYTES",
        "images": "UINT8",
    }
    assert {tensor["name"]: tensor["shape"] for tensor in model["outputs"]} == {
        "probabilities": [-1, 5],
        "logits": [-1, 5],
        "label": [-1],
    }
    assert running.get_model_metadata("tiny", predictor.model_id) == model


@pytest.mark.parametrize("outputs", ["all", "binary", "json", "mixed"])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
@pytest.mark.parametrize("name", ["image", "image in a column", "images"])
def test_every_way_to_ask_gives_the_answers_of_the_predictor(
    running: triton.InferenceServerClient,
    predictor: Predictor,
    name: str,
    binary: bool,
    count: int,
    outputs: str,
) -> None:
    name, _, column = name.partition(" ")
    kinds = {"binary": (True, True, True), "json": (False,) * 3, "mixed": (False, True, True)}
    wanted = None
    if outputs != "all":
        names = ("logits", "label", "probabilities")
        pairs = zip(names, kinds[outputs], strict=True)
        wanted = [triton.InferRequestedOutput(each, binary_data=how) for each, how in pairs]
    tensor = given(name, count, binary, bool(column))
    found = running.infer("tiny", [tensor], outputs=wanted, request_id="a1")
    expected = [predictor(picture) for picture in PICTURES[:count]]
    for output in ("logits", "probabilities"):
        values = found.as_numpy(output)
        assert values.dtype == np.float32
        assert (values == np.stack([getattr(each, output) for each in expected])).all()
    labels = [v.decode() if isinstance(v, bytes) else v for v in found.as_numpy("label")]
    assert labels == [each.label for each in expected]
    response = found.get_response()
    assert response["id"] == "a1" and response["model_name"] == "tiny"
    assert response["model_version"] == predictor.model_id


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_a_compressed_request(
    running: triton.InferenceServerClient, predictor: Predictor, algorithm: str
) -> None:
    found = running.infer(
        "tiny",
        [given("images", 2, True, False)],
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    assert (found.as_numpy("logits")[1] == predictor(PICTURES[1]).logits).all()


@pytest.mark.parametrize("binary", [True, False])
def test_the_best_classes(
    running: triton.InferenceServerClient, predictor: Predictor, binary: bool
) -> None:
    wanted = triton.InferRequestedOutput("probabilities", binary_data=binary, class_count=2)
    found = running.infer("tiny", [given("image", 2, True, False)], outputs=[wanted])
    rows = found.as_numpy("probabilities")
    assert rows.shape == (2, 2)
    first = rows[0][0].decode() if isinstance(rows[0][0], bytes) else rows[0][0]
    value, index, label = first.split(":", 2)
    expected = predictor(PICTURES[0])
    assert (int(index), label) == (expected.index, expected.label)
    assert float(value) == pytest.approx(expected.confidence, abs=1e-6)


def test_asynchronous_requests(running: triton.InferenceServerClient, predictor: Predictor) -> None:
    asked = [running.async_infer("tiny", [given("image", n, True, False)]) for n in (1, 2, 3)]
    assert [len(each.get_result().as_numpy("label")) for each in asked] == [1, 2, 3]


def test_the_client_shows_what_was_wrong(running: triton.InferenceServerClient) -> None:
    broken = triton.InferInput("image", [2], "BYTES")
    broken.set_data_from_numpy(np.array([PNGS[0], b"no photo"], object))
    unknown = triton.InferInput("pixels", [1], "UINT8")
    unknown.set_data_from_numpy(np.zeros(1, np.uint8))
    wide = triton.InferInput("images", [1, 2, 2, 4], "UINT8")
    wide.set_data_from_numpy(np.zeros((1, 2, 2, 4), np.uint8))
    real = triton.InferInput("images", [1, 2, 2, 3], "FP32")
    real.set_data_from_numpy(np.zeros((1, 2, 2, 3), np.float32))
    good = given("image", 1, True, False)
    shared = triton.InferInput("image", [1], "BYTES")
    shared.set_shared_memory("region", 10)
    embedding = triton.InferRequestedOutput("embedding")
    for model, inputs, outputs, status, message in (
        ("tiny", [broken], None, "422", "Photo 1: it is not an image"),
        ("tiny", [unknown], None, "400", "no input 'pixels'"),
        ("tiny", [wide], None, "400", r"must be \[N, H, W, 3\]"),
        ("tiny", [real], None, "400", "must be UINT8"),
        ("tiny", [good, good], None, "400", "2 inputs"),
        ("tiny", [shared], None, "400", "no shared memory"),
        ("tiny", [good], [embedding], "400", "no output 'embedding'"),
        ("dog", [good], None, "404", "There is no model 'dog'"),
    ):
        with pytest.raises(InferenceServerException, match=message) as error:
            running.infer(model, inputs, outputs=outputs)
        assert error.value.status() == status
    with pytest.raises(InferenceServerException, match="no version '1'"):
        running.infer("tiny", [good], model_version="1")
    assert running.infer("tiny", [good]).as_numpy("label").shape == (1,)


def request(**changes: Any) -> dict[str, Any]:
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [base64_of(PNGS[0])]}
    return {"inputs": [{**tensor, **changes}]}


def base64_of(content: bytes) -> str:
    return base64.b64encode(content).decode()


def infer(plain: TestClient, body: Any, **headers: str) -> Any:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return plain.post("/v2/models/tiny/infer", content=content, headers=named)


def test_json_by_hand(plain: TestClient, predictor: Predictor) -> None:
    nested = request(shape=[2, 1], data=[[base64_of(PNGS[0])], [base64_of(PNGS[1])]])
    answer = infer(plain, {**nested, "outputs": [{"name": "label"}]})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    (output,) = answer.json()["outputs"]
    labels = [predictor(picture).label for picture in PICTURES[:2]]
    assert output == {"name": "label", "datatype": "BYTES", "shape": [2], "data": labels}
    assert "id" not in answer.json()
    changes = {"name": "images", "shape": [1, 40, 50, 3], "datatype": "UINT8"}
    answer = infer(plain, request(**changes, data=PIXELS[:1].tolist()))
    assert len(answer.json()["outputs"]) == 3


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[]",
        b"1",
        b"[" * 100_000,
        b'{"inputs": [' + b"[" * 100_000,
        {},
        {"inputs": []},
        {"inputs": {}},
        {"inputs": [1]},
        {"inputs": [{}]},
        request(shape=[2]),
        request(shape=[]),
        request(shape=[1, 2]),
        request(shape=[-1]),
        request(shape=[True]),
        request(shape="1"),
        request(shape=[0], data=[]),
        request(data=["no base64!"]),
        request(data=[1]),
        request(data=None),
        request(data=["é"]),
        request(datatype="UINT8"),
        request(parameters=[]),
        request(parameters={"binary_data_size": 3}),
        request(parameters={"binary_data_size": "3"}),
        request(name="images", datatype="UINT8", shape=[1, 1, 1, 3], data=[1, 2]),
        request(name="images", datatype="UINT8", shape=[1, 1, 1, 3], data=[1, 2, 256]),
        request(name="images", datatype="UINT8", shape=[1, 1, 1, 3], data=[1, 2, -1]),
        request(name="images", datatype="UINT8", shape=[1, 1, 1, 3], data=[1, 2, 0.5]),
        request(name="images", datatype="UINT8", shape=[1, 1, 1, 3], data=[1, [2, 3]]),
        request(name="images", datatype="UINT8", shape=[1, 1, 1, 3], data=["a", "b", "c"]),
        request(name="images", datatype="UINT8", shape=[10**9, 10**9, 10**9, 3], data=[1]),
        {**request(), "id": 5},
        {**request(), "outputs": [1]},
        {**request(), "outputs": [{"name": "label", "parameters": {"classification": 1}}]},
        {**request(), "outputs": [{"name": "logits", "parameters": {"classification": -1}}]},
        {**request(), "parameters": 1},
        request(datatype="\ud800"),  # half a character
        {**request(), "id": "\ud800"},
        request(
            name="images",
            datatype="UINT8",
            shape=[10**7, 0, 0, 3],  # photos without a byte
            data=None,
            parameters={"binary_data_size": 0},
        ),
        {**request(), "outputs": [{"name": "logits"}] * 2},
    ],
)
def test_what_does_not_follow_the_protocol_is_400_with_a_reason(
    plain: TestClient, body: Any
) -> None:
    answer = infer(plain, body)
    assert answer.status_code == 400, answer.text
    assert len(answer.json()["error"]) > 10


def test_json_that_would_take_the_memory_is_not_parsed(plain: TestClient) -> None:
    answer = infer(plain, b"[" + b"[]," * (1 << 20) + b"[]]")
    assert (answer.status_code, "too many parts" in answer.text) == (400, True)


@pytest.mark.parametrize("header", ["-1", "x", "99999", "1.0", "9" * 30, "3"])
def test_a_wrong_length_of_the_header_is_400(plain: TestClient, header: str) -> None:
    answer = infer(plain, request(), Inference_Header_Content_Length=header)
    assert answer.status_code == 400


def test_bytes_that_do_not_fit_are_400(plain: TestClient) -> None:
    for content in (b"", b"\1\0", b"\5\0\0\0abcd", b"\xff\xff\xff\xffabcd", b"\0\0\0\0\0\0\0\0"):
        tensor = request(data=None, parameters={"binary_data_size": len(content)})
        text = json.dumps(tensor).encode()
        answer = infer(plain, text + content, Inference_Header_Content_Length=str(len(text)))
        assert answer.status_code == 400, content


def test_damaged_requests_raise_nothing_else(predictor: Predictor) -> None:
    rng = random.Random(0)
    tensor = {"name": "images", "shape": [1, 2, 2, 3], "datatype": "UINT8"}
    text = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": 12}}]}).encode()
    bodies = [json.dumps(request()).encode(), text + bytes(12)]
    pieces, refused = (b"", b"0", b"[", b"-", b'"', b"{"), 0
    for _ in range(3000):
        body = bytearray(rng.choice(bodies))
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(min(len(body), 130))
            body[place : place + rng.randint(0, 2)] = rng.choice(pieces)
        header = rng.choice((None, str(len(text)), str(len(body))))
        try:
            read_request(bytes(body), header, predictor.card)
        except InferenceError:
            refused += 1
    assert 1000 < refused < 3000


def test_a_photo_that_cannot_be_read_is_422_and_counted_once(tiny_bundle: Path) -> None:
    with service_client(tiny_bundle) as plain:
        answer = infer(plain, request(data=[base64_of(b"no photo")]))
        assert answer.status_code == 422
        assert answer.json()["error"].startswith("Photo 0: it is not an image")
        assert 'edgetl_errors_total{kind="photo"} 1.0' in plain.get("/metrics").text


def test_a_bomb_of_the_compression_is_413(tiny_bundle: Path) -> None:
    with service_client(tiny_bundle, max_body=100_000) as plain:
        answer = infer(plain, gzip.compress(b" " * 200_000), Content_Encoding="gzip")
        assert answer.status_code == 413


def test_a_model_that_can_tell_unknown_photos_has_outputs_for_it(predictor: Predictor) -> None:
    card = replace(predictor.card, unknown=UnknownLimits(1.0, 0.95, 1.0, {}))
    answers = iter([(1.5, True), (0.5, False)])

    def answer(photo: bytes) -> Prediction:
        score, is_unknown = next(answers)
        return replace(predictor(photo), ood_score=score, is_unknown=is_unknown)

    body = request(shape=[2], data=[base64_of(PNGS[0])] * 2)
    with service_client(models=Scripted(answer, card)) as plain:
        found = plain.post("/v2/models/scripted/infer", json=body)
        described = plain.get("/v2/models/scripted").json()["outputs"]
    outputs = {output["name"]: output for output in found.json()["outputs"]}
    assert set(outputs) == {output["name"] for output in described}
    pairs = zip(outputs["ood_score"]["data"], outputs["unknown"]["data"], strict=True)
    assert set(pairs) == {(1.5, True), (0.5, False)}
    assert outputs["unknown"]["datatype"] == "BOOL"
