"""``POST /predict``: the answers of the predictor, and a reason where there is none."""

from __future__ import annotations

import gzip
import io
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from helpers import tiny_bundle as bundles
from helpers.pictures import photo
from helpers.services import Scripted, figures
from helpers.services import client as service_client
from starlette.testclient import TestClient

from edgetl.cli.main import command as program
from edgetl.errors import ImageError, PredictionError
from edgetl.runtime.inference.predictor import Predictor

BROKEN = b"no photo"


@pytest.fixture(scope="module")
def jpeg() -> bytes:
    buffer = io.BytesIO()
    photo(7, 90, 60).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def client(tiny_bundle: Path) -> Iterator[TestClient]:
    with service_client(tiny_bundle, max_body=200_000, queue=4) as found:
        yield found


def send(client: TestClient, body: bytes, kind: str | None = "image/jpeg", **more: Any) -> Any:
    headers = {**more.pop("headers", {}), **({} if kind is None else {"Content-Type": kind})}
    return client.post("/predict", content=body, headers=headers, **more)


def test_a_photo_is_answered_as_the_command_prints_it(
    client: TestClient, jpeg: bytes, tiny_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "photo.jpg").write_bytes(jpeg)
    for options, parameters in (([], {}), (["--top", "2"], {"top": "2"})):
        arguments = ["predict", str(tiny_bundle), str(tmp_path / "photo.jpg"), "--json", *options]
        printed = json.loads(CliRunner().invoke(program, arguments).stdout)
        answer = send(client, jpeg, params=parameters)
        assert answer.status_code == 200
        assert {**answer.json(), "source": printed["source"]} == printed
        assert answer.text.endswith("}\n")  # a line, as the command prints it


@pytest.mark.parametrize(
    "kind", [None, "image/png", "application/octet-stream", "application/x-www-form-urlencoded"]
)
def test_the_content_tells_what_a_photo_is(
    client: TestClient, jpeg: bytes, kind: str | None
) -> None:
    assert send(client, jpeg, kind).json()["label"] == send(client, jpeg).json()["label"]


def test_the_answer_tells_by_which_model_and_in_what_time(
    client: TestClient, jpeg: bytes, tiny_bundle: Path
) -> None:
    headers = send(client, jpeg).headers
    assert headers["edgetl-model"] == Predictor(tiny_bundle).model_id
    assert "total;dur=" in headers["server-timing"]


def test_several_photos_of_a_form_are_answered_in_order(
    client: TestClient, jpeg: bytes, tiny_bundle: Path
) -> None:
    files = [("photo", ("a.jpg", jpeg)), ("x", ("b.txt", BROKEN)), ("photo", ("ü.jpg", jpeg))]
    answer = client.post("/predict", files=files, data={"note": "no file"}, params={"top": "1"})
    assert answer.status_code == 200
    first, second, third = answer.json()
    expected = Predictor(tiny_bundle)(jpeg).to_dict(1)
    assert first == {**expected, "source": "a.jpg"}
    assert set(second) == {"source", "error"} and second["source"] == "b.txt"
    assert third == {**expected, "source": "ü.jpg"}


def test_a_photo_that_cannot_be_read_is_422_with_the_reason(
    client: TestClient, jpeg: bytes
) -> None:
    for body in (BROKEN, b"", jpeg[:400]):
        answer = send(client, body)
        assert answer.status_code == 422
        assert answer.json()["source"] == f"<{len(body)} bytes>"
        assert answer.json()["error"].startswith("it is ")
    answer = client.post("/predict", files={"photo": ("a.jpg", BROKEN)})
    assert answer.status_code == 422
    assert [row["source"] for row in answer.json()] == ["a.jpg"]


@pytest.mark.parametrize("kind", ["text/plain", "application/json", "text/html; charset=utf-8"])
def test_what_is_no_photo_is_415(client: TestClient, kind: str) -> None:
    answer = send(client, b"{}", kind)
    assert answer.status_code == 415
    assert kind.partition(";")[0] in answer.json()["error"]


@pytest.mark.parametrize("top", ["0", "-1", "x", "1.5", "", "²", "9" * 40])
def test_a_wrong_top_is_400(client: TestClient, jpeg: bytes, top: str) -> None:
    answer = send(client, jpeg, params={"top": top})
    assert (answer.status_code, "top is" in answer.json()["error"]) == (400, True)


def test_a_misspelt_parameter_is_400(client: TestClient, jpeg: bytes) -> None:
    answer = send(client, jpeg, params={"modle": "tiny"})
    assert answer.status_code == 400
    assert answer.json()["error"] == "There is no parameter 'modle'. There are: top, model."


def test_another_path_or_method_is_told_what_there_is(client: TestClient, jpeg: bytes) -> None:
    answer = client.put("/predict", content=jpeg)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
    assert answer.json()["error"] == "/predict does not take PUT. It takes: POST."
    answer = client.post("/classify", content=jpeg)
    assert answer.status_code == 404 and "/openapi.json" in answer.json()["error"]


def test_forms_that_cannot_be_read_are_400(client: TestClient) -> None:
    assert client.post("/predict", data={"a": "b"}, files={}).status_code == 422  # one "photo"
    for kind, body in (
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=b", b"--b\r\nno header\r\n\r\n--b--"),
        (
            "multipart/form-data; boundary=b",
            b"--b\r\nContent-Disposition: x; name=a\r\n\r\n\r\n--b--",
        ),
        ("multipart/form-data; boundary=b; charset=undefined", named_in_form(b"x")),
    ):
        answer = send(client, body, kind)
        assert answer.status_code == 400, body
        assert "form" in answer.json()["error"]


def named_in_form(name: bytes) -> bytes:
    header = b'Content-Disposition: form-data; name="a"; filename="' + name + b'"'
    return b"--b\r\n" + header + b"\r\n\r\nno photo\r\n--b--\r\n"


def test_a_name_with_half_a_character_is_escaped(client: TestClient) -> None:
    kind = "multipart/form-data; boundary=b; charset=utf-7"
    answer = send(client, named_in_form(b"+2AA-.jpg"), kind)
    assert (answer.status_code, answer.json()[0]["source"]) == (422, "\\ud800.jpg")


def test_too_long_a_body_is_413_whether_it_says_so_or_not(client: TestClient) -> None:
    def chunks() -> Iterator[bytes]:
        yield from [b"x" * 100_000] * 3

    for body in (b"x" * 200_001, chunks()):
        answer = send(client, body)  # type: ignore[arg-type]
        assert answer.status_code == 413
        assert "MiB" in answer.json()["error"]
    bomb = gzip.compress(b"x" * 200_001)
    assert len(bomb) < 1000
    assert send(client, bomb, headers={"Content-Encoding": "gzip"}).status_code == 413


def test_a_compressed_body_is_read(client: TestClient, jpeg: bytes) -> None:
    packed = gzip.compress(jpeg)
    headers = {"Content-Encoding": "gzip"}
    assert send(client, packed, headers=headers).json() == send(client, jpeg).json()
    assert send(client, packed[:-9], headers=headers).status_code == 400
    assert send(client, jpeg, headers=headers).status_code == 400
    assert send(client, jpeg, headers={"Content-Encoding": "br"}).status_code == 415


def test_more_photos_than_can_wait_are_413(client: TestClient, jpeg: bytes) -> None:
    answer = client.post("/predict", files=[("photo", (f"{i}.jpg", jpeg)) for i in range(5)])
    assert answer.status_code == 413
    assert "at most 4 photos" in answer.json()["error"]


def test_each_model_has_a_name(tiny_bundle: Path, bundle_copy: Path, jpeg: bytes) -> None:
    with service_client(tiny_bundle, bundle_copy) as client:
        for name in ("tiny", "copy"):
            assert send(client, jpeg, params={"model": name}).status_code == 200
        answer = send(client, jpeg, params={"model": "cats"})
        assert answer.status_code == 404
        assert answer.json()["error"] == "There is no model 'cats'. There is: tiny, copy."
        assert set(client.get("/healthz").json()["models"]) == {"tiny", "copy"}


def test_a_model_that_fails_is_500_counted_and_tells_no_path(
    jpeg: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(photo: object) -> None:
        raise PredictionError("photo", "/secret/model.onnx", "its answers are not finite")

    def crash(photo: object) -> None:
        raise RuntimeError("/secret")

    for answer in (fail, crash):
        with service_client(models=Scripted(answer)) as client:
            for files in (None, {"photo": ("a.jpg", jpeg)}):
                found = client.post("/predict", content=None if files else jpeg, files=files)
                assert found.status_code == 500
                assert "secret" not in found.text and "error" in found.text
            counted = figures(client.get("/metrics").text)
            assert counted['edgetl_errors_total{kind="model"}'] == 2
    assert "/secret/model.onnx: its answers are not finite" in caplog.text


def test_where_only_the_system_failed_it_is_503(jpeg: bytes) -> None:
    def fail(photo: object) -> None:
        raise ImageError("photo", "too many open files")

    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": ["aGk="]}
    with service_client(models=Scripted(fail, bundles.card())) as client:
        asked = client.post("/v2/models/scripted/infer", json={"inputs": [tensor]})
        for answer in (send(client, jpeg), asked):
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert "too many open files" in answer.json()["error"]


def test_beyond_the_queue_requests_are_refused_and_those_in_it_are_answered(
    tiny_bundle: Path, jpeg: bytes
) -> None:
    predictor, go, started = Predictor(tiny_bundle, threads=1), threading.Event(), threading.Event()

    def wait(photo: bytes) -> Any:
        started.set()
        assert go.wait(30)
        return predictor(photo)

    with service_client(models=Scripted(wait), queue=2) as client:
        answers: list[Any] = []
        threads = [
            threading.Thread(target=lambda: answers.append(send(client, jpeg))) for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        assert started.wait(30)
        while figures(client.get("/metrics").text)["edgetl_queue_photos"] < 2:
            time.sleep(0.01)
        refused = send(client, jpeg)
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        go.set()
        for thread in threads:
            thread.join(30)
        assert [answer.status_code for answer in answers] == [200, 200]
        assert send(client, jpeg).status_code == 200
        counted = figures(client.get("/metrics").text)
        assert counted['edgetl_errors_total{kind="busy"}'] == 1
        assert counted["edgetl_queue_photos"] == 0


def test_an_answer_that_takes_too_long_is_503(jpeg: bytes) -> None:
    go = threading.Event()
    with service_client(models=Scripted(lambda photo: go.wait(30)), timeout=0.2) as client:
        found = send(client, jpeg)
        go.set()
    assert found.status_code == 503 and "0.2 seconds" in found.json()["error"]


def test_figures_for_prometheus(tiny_bundle: Path, jpeg: bytes) -> None:
    with service_client(tiny_bundle) as client:
        label = send(client, jpeg).json()["label"].replace("\n", r"\n")
        send(client, BROKEN)
        client.get("/nowhere")
        counted = figures(client.get("/metrics").text)
    assert counted[f'edgetl_photos_total{{label="{label}",model="tiny"}}'] == 1
    assert counted['edgetl_requests_total{endpoint="predict",status="200"}'] == 1
    assert counted['edgetl_requests_total{endpoint="predict",status="422"}'] == 1
    assert counted['edgetl_requests_total{endpoint="none",status="404"}'] == 1
    assert counted['edgetl_errors_total{kind="photo"}'] == 1
    assert counted['edgetl_confidence_count{model="tiny"}'] == 1
    assert counted['edgetl_photo_seconds_count{model="tiny"}'] == 1
    assert counted['edgetl_request_seconds_count{endpoint="predict"}'] == 2
