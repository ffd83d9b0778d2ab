"""The page of a review of labels: the photos one by one, and what is decided about each."""

from __future__ import annotations

import io
from dataclasses import asdict
from typing import Any

from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from edgetl.data.label_review import LabelReview, ReviewItem
from edgetl.errors import EdgetlError, ImageError
from edgetl.runtime.images.decode import read_image
from edgetl.serving.page_files import page_routes

_SIDE = 1600  # pixels of a photo that is shown, at most
_QUALITY = 90  # of its JPEG


def review_app(review: LabelReview, name: str) -> Starlette:
    """The application behind the page.

    name  of the run

    Only the photos of ``review`` are served, by their numbers, and as new JPEGs.
    """

    def answer(index: int | None) -> JSONResponse:
        item = None if index is None else _as_json(review.items[index])
        return JSONResponse({"index": index, "item": item})

    async def state(request: Request) -> JSONResponse:
        items = [_as_json(item) for item in review.items]
        return JSONResponse({"name": name, "labels": review.labels, "items": items})

    async def keep(request: Request) -> JSONResponse:
        index = request.path_params["index"]
        review.keep(index)
        return answer(index)

    async def move(request: Request) -> JSONResponse:
        index = request.path_params["index"]
        review.move(index, (await request.body()).decode(errors="replace"))
        return answer(index)

    async def undo(request: Request) -> JSONResponse:
        return answer(review.undo())

    def photo(request: Request) -> Response:  # not async: in a thread, since decoding takes time
        index = request.path_params["index"]
        if index >= len(review.items):
            return PlainTextResponse("There is no such photo.", 404)
        try:
            picture = read_image(review.items[index].path)
        except ImageError as error:
            return PlainTextResponse(error.reason, 404)
        picture.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0)
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=_QUALITY)
        return Response(buffer.getvalue(), media_type="image/jpeg")

    return Starlette(
        routes=[
            *page_routes("review"),
            Route("/state", state),
            Route("/photos/{index:int}", photo),
            Route("/photos/{index:int}/keep", keep, methods=["POST"]),
            Route("/photos/{index:int}/move", move, methods=["POST"]),
            Route("/undo", undo, methods=["POST"]),
        ],
        exception_handlers={EdgetlError: _refused},
    )


def _as_json(item: ReviewItem) -> dict[str, Any]:
    return {**asdict(item.photo), "state": item.state, "new_label": item.new_label}


def _refused(request: Request, error: Exception) -> Response:
    return PlainTextResponse(str(error), 409)
