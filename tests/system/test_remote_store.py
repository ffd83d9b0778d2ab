"""What the errors of stores mean: each of fsspec's packages has its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from edgetl.errors import DataError
from edgetl.system import remote_store
from edgetl.system.remote_store import store_error, tried


class HttpResponseError(Exception):
    """As azure.core raises it."""

    def __init__(self, status_code: int) -> None:
        super().__init__("Server failed to authenticate the request.")
        self.status_code = status_code


class HttpError(Exception):
    """As gcsfs raises it."""

    def __init__(self, code: int) -> None:
        super().__init__(f", {code}")
        self.code = code


class Failing:
    """Raises the error so many times, and then returns how often that was."""

    def __init__(self, error: Exception, times: int) -> None:
        self.error, self.times, self.calls = error, times, 0

    def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self.times:
            raise self.error
        return self.times


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_store, "PAUSES", (0.0,) * 5)
    monkeypatch.setattr(remote_store, "_is_away", False)


def attempt(address: str, action: Callable[[], Any]) -> Any:
    return tried(partial(store_error, DataError, "read"), address, action)


@pytest.mark.parametrize(
    ("address", "error", "variable"),
    [
        ("az://pets/1.jpg", HttpResponseError(403), "AZURE_STORAGE_CONNECTION_STRING"),
        ("gs://pets/1.jpg", OSError("Forbidden: pets/1.jpg\nno"), "GOOGLE_APPLICATION_CREDENTIALS"),
        ("gs://pets/1.jpg", HttpError(401), "GOOGLE_APPLICATION_CREDENTIALS"),
        ("s3://pets/1.jpg", PermissionError("Access Denied"), "AWS_PROFILE"),
    ],
)
def test_refused_access_is_not_tried_again_and_names_the_store_s_credentials(
    address: str, error: Exception, variable: str
) -> None:
    action = Failing(error, 9)
    with pytest.raises(DataError, match=r"the store refuses access") as raised:
        attempt(address, action)
    assert action.calls == 1 and variable in str(raised.value.hint)


@pytest.mark.parametrize("error", [HttpResponseError(503), HttpError(503), OSError("reset")])
def test_what_may_pass_is_tried_again(error: Exception) -> None:
    assert attempt("az://pets/1.jpg", Failing(error, 3)) == 3
