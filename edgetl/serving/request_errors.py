"""Requests that are not answered as they ask, as HTTP responses."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from edgetl.serving.json_line import JsonLine

AGAIN = {"Retry-After": "1"}
"""Headers of a response to a request that may succeed a second later."""


def encodable(text: str) -> str:
    """``text`` with halves of characters, which JSON and some encodings can have, escaped."""
    return text.encode(errors="backslashreplace").decode()


class RequestError(Exception):
    """A request that is refused, or that failed.

    status   of the response
    kind     of the error, for the metrics; None: it is counted already
    message  what was wrong, and what to do next; the sender reads it
    headers  of the response
    """

    def __init__(
        self, status: int, kind: str | None, message: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.headers = status, kind, headers
        self.message = encodable(message)  # it may repeat what the request says


def busy(message: str) -> RequestError:
    """A request that may succeed a second later."""
    return RequestError(503, "busy", message, AGAIN)


def error_response(request: Request, error: Exception) -> Response:
    """The response to a RequestError, or to one of Starlette's, such as 404."""
    if isinstance(error, RequestError):
        request.state.error_kind = error.kind
        return JsonLine({"error": error.message}, error.status, error.headers)
    assert isinstance(error, HTTPException)
    request.state.error_kind = "request"
    path, message = request.url.path, error.detail
    if error.status_code == 404:
        message = f"There is nothing at {path}. /openapi.json says what there is."
    elif error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        message = f"{path} does not take {request.method}. It takes: {allowed}."
    return JsonLine({"error": message}, error.status_code, error.headers)


def failed_response(request: Request, error: Exception) -> Response:
    """The response to an error that no one expected; the server logs its traceback."""
    request.state.error_kind = "model"
    return JsonLine({"error": "The service failed on this request; its log says why."}, 500)
