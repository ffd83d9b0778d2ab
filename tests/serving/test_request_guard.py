"""Who may send requests, and what protects the page and its answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.services import ORIGIN, client
from starlette.datastructures import URL
from starlette.requests import Request
from starlette.testclient import TestClient

from edgetl.errors import EdgetlError
from edgetl.serving.service_settings import model_names, read_token

TOKEN = "0123456789abcdef"
OPEN = ("/", "/classify.js", "/page.css", "/classify.css", "/healthz", "/openapi.json")


@pytest.fixture(scope="module")
def local(tiny_bundle: Path) -> Iterator[TestClient]:
    with client(tiny_bundle) as found:
        yield found


@pytest.fixture(scope="module")
def guarded(tiny_bundle: Path) -> Iterator[TestClient]:
    with client(tiny_bundle, token=TOKEN) as found:
        yield found


@pytest.mark.parametrize("path", [*OPEN, "/metrics", "/nowhere"])
def test_every_answer_is_protected(local: TestClient, path: str) -> None:
    headers = local.get(path).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "[::1]:8000", "192.168.1.4"])
def test_this_machine_is_addressed_by_localhost_or_a_number(local: TestClient, host: str) -> None:
    assert local.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example:8000", "127.0.0.1.evil.example", "", "a b", "[x", "127.0.0.1/x?"]
)
def test_a_name_that_leads_here_is_refused(local: TestClient, host: str) -> None:
    """DNS rebinding: a page of evil.example, whose name has become this machine's."""
    answer = local.get("/healthz", headers={"Host": host})
    assert answer.status_code == 403 and "models" not in answer.text


def test_the_host_does_not_choose_the_file(
    guarded: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As older versions of Starlette would let it for ``Host: 127.0.0.1/service_app.py?``."""
    monkeypatch.setattr(Request, "url", URL("http://127.0.0.1/service_app.py?/"))
    for path, begin in (("/", "<!doctype html>"), ("/page.css", ":root")):
        assert guarded.get(path, headers={"Authorization": ""}).text.startswith(begin)


@pytest.mark.parametrize("origin", ["null", "http://evil.example", "http://127.0.0.1:1"])
def test_a_page_of_another_site_is_refused(local: TestClient, origin: str) -> None:
    assert local.post("/predict", headers={"Origin": origin}).status_code == 403
    assert local.post("/predict", headers={"Origin": ORIGIN}).status_code == 422


def test_a_service_for_others_may_have_any_name(tiny_bundle: Path) -> None:
    with client(tiny_bundle, only_here=False) as found:
        assert found.get("/healthz", headers={"Host": "pi.local"}).status_code == 200


@pytest.mark.parametrize("path", ["/predict", "/metrics", "/nowhere", "/v2", "/v2/models/tiny"])
def test_without_the_token_only_the_page_and_the_health_are_there(
    guarded: TestClient, path: str
) -> None:
    for wrong in ("", "Bearer", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", "é"):
        headers = {"Authorization": wrong.encode("latin-1")}
        answer = guarded.post(path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
    for open_path in OPEN:
        assert guarded.get(open_path, headers={"Authorization": ""}).status_code == 200
    assert guarded.get("/metrics").status_code == 200


def test_a_token_is_the_first_line_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"  {TOKEN}\nanything\n")
    assert read_token(file) == TOKEN
    for wrong in (
        b"",
        b"short\n",
        b"with a space in it\n",
        "ümlaut-ümlaut-ümlaut".encode(),
        b"\xff",
    ):
        file.write_bytes(wrong)
        with pytest.raises(EdgetlError, match="token"):
            read_token(file)
    with pytest.raises(EdgetlError, match="can't be read"):
        read_token(tmp_path)


def test_a_model_has_the_name_of_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pets, other = tmp_path / "a/pets", tmp_path / "b/pets"
    pets.mkdir(parents=True)
    monkeypatch.chdir(pets)
    assert model_names([Path(), Path("x/cats.onnx")]) == {
        "pets": Path(),
        "cats": Path("x/cats.onnx"),
    }
    with pytest.raises(EdgetlError, match="both be served as 'pets'"):
        model_names([pets, other])
    with pytest.raises(EdgetlError, match="not UTF-8"):
        model_names([tmp_path / "half a character \ud800"])
