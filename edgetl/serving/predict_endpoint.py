"""``POST /predict``: a photo, or several, → what ``edgetl predict --json`` prints."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edgetl.errors import ImageError, PredictionError
from edgetl.runtime.inference.prediction import Result
from edgetl.runtime.results.records import as_record
from edgetl.serving.json_line import JsonLine
from edgetl.serving.photo_service import PhotoService, status_of
from edgetl.serving.request_errors import AGAIN, RequestError, encodable

_PARAMETERS = ("top", "model")
_MULTIPART = "multipart/form-data"
# What a body may be called that is one photo; its content tells what it is. The last one is what
# curl --data-binary says unless it is told otherwise.
_ONE_PHOTO = ("", "application/octet-stream", "application/x-www-form-urlencoded")


def predict_route(service: PhotoService) -> Route:
    """The route of ``POST /predict``."""

    async def predict(request: Request) -> Response:
        _refuse_unknown_parameters(request)
        top, model = _top(request), service.model(request.query_params.get("model"))
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in (_MULTIPART, *_ONE_PHOTO) and not kind.startswith("image/"):
            message = f"{kind} is not read here: send image/*, {_ONE_PHOTO[1]} or {_MULTIPART}."
            raise RequestError(415, "unsupported", message)
        async with service.bodies.receive(request) as body:
            photos = await _files(request, body) if kind == _MULTIPART else [(None, body)]
            results, headers = await service.classify(request, model, [p for _, p in photos])
        records = [
            _record(result if name is None else _renamed(result, name), top)
            for result, (name, _) in zip(results, photos, strict=True)
        ]
        status = 200 if any("label" in record for record in records) else status_of(results)
        headers |= AGAIN if status == 503 else {}
        values = records if kind == _MULTIPART else records[0]
        return JsonLine(values, status, headers)

    return Route("/predict", predict, methods=["POST"])


def _record(result: Result, top: int | None) -> dict[str, Any]:
    record = as_record(result, top=top)
    if isinstance(result, PredictionError):  # its message names files of the server
        record["error"] = f"the model failed: {result.reason}"
    return record


def _renamed(result: Result, name: str) -> Result:
    """``result`` for a photo that its sender calls ``name``."""
    if isinstance(result, ImageError):
        return ImageError(name, result.reason, result.hint)
    if isinstance(result, PredictionError):
        return PredictionError(name, result.path, result.reason, result.hint)
    return replace(result, source=name)


def _refuse_unknown_parameters(request: Request) -> None:
    """One that is misspelt would have no effect, and the first model would answer for another."""
    for name in request.query_params:
        if name not in _PARAMETERS:
            message = f"There is no parameter {name!r}. There are: {', '.join(_PARAMETERS)}."
            raise RequestError(400, "request", message)


def _top(request: Request) -> int | None:
    text = request.query_params.get("top")
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) > 0):
        message = f"top is {text!r}; it must be a whole number, at least 1."
        raise RequestError(400, "request", message)
    return int(text)


class _InMemory(MultiPartParser):
    """Writes no photo to the disk."""

    spool_max_size = sys.maxsize


async def _files(request: Request, body: bytes) -> list[tuple[str | None, bytes]]:
    """(name, content) of each file in a multipart form. Raises RequestError."""

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        form = await _InMemory(request.headers, stream(), max_fields=100).parse()
    except (MultiPartException, KeyError, UnicodeError) as error:
        reason = "it names no boundary" if isinstance(error, KeyError) else str(error)
        raise RequestError(400, "request", f"The form can't be read: {reason}") from error
    try:
        files = [part for _, part in form.multi_items() if isinstance(part, UploadFile)]
        if not files:
            message = "The form has no file: curl -F photo=@photo.jpg sends one."
            raise RequestError(400, "request", message)
        return [(encodable(file.filename or "photo"), await file.read()) for file in files]
    finally:
        await form.close()
