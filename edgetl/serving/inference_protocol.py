"""The Open Inference Protocol v2: what clients of KServe, Triton and MLServer speak."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edgetl._version import __version__
from edgetl.runtime.inference.prediction import Prediction
from edgetl.serving.inference_tensors import (
    HEADER_LENGTH,
    InferenceError,
    read_request,
    tensors,
    write_response,
)
from edgetl.serving.photo_queue import Result
from edgetl.serving.photo_service import PhotoService, status_of
from edgetl.serving.request_errors import AGAIN, RequestError
from edgetl.serving.served_models import ServedModel

_LONG = 1 << 16  # bytes of a body that is read in a thread, as numbers in JSON take time


def protocol_routes(service: PhotoService) -> list[Route]:
    """The routes below ``/v2``."""

    def model_of(request: Request) -> ServedModel:
        model = service.model(request.path_params["name"])
        version = request.path_params.get("version", model.version)
        if version != model.version:
            message = f"{model.name} has no version {version!r}; it is {model.version} now."
            raise RequestError(404, "request", message)
        return model

    async def server_metadata(_: Request) -> Response:
        extensions = ["binary_tensor_data", "classification"]
        return JSONResponse({"name": "edgetl", "version": __version__, "extensions": extensions})

    async def live(_: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(_: Request) -> Response:
        return JSONResponse({"ready": True})

    async def model_ready(request: Request) -> Response:
        return JSONResponse({"name": model_of(request).name, "ready": True})

    async def model_metadata(request: Request) -> Response:
        model = model_of(request)
        card = model.predictor.card
        named = {"name": model.name, "versions": [model.version], "platform": "edgetl"}
        return JSONResponse({**named, **tensors(card), "labels": card.labels})

    one_by_one = asyncio.Lock()  # numbers in JSON become many times as long in memory

    async def infer(request: Request) -> Response:
        model = model_of(request)
        card, header = model.predictor.card, request.headers.get(HEADER_LENGTH)
        async with service.bodies.receive(request) as body:
            try:
                if len(body) < _LONG:
                    wanted = read_request(body, header, card)
                else:
                    async with one_by_one:
                        wanted = await asyncio.to_thread(read_request, body, header, card)
            except InferenceError as error:
                raise RequestError(400, "request", str(error)) from error
            results, headers = await service.classify(request, model, wanted.photos)
        described = {"model_name": model.name, "model_version": model.version}
        content, length = write_response(described, wanted, _predictions(results), card)
        if length is None:
            return Response(content, headers=headers, media_type="application/json")
        headers[HEADER_LENGTH] = str(length)
        return Response(content, headers=headers, media_type="application/octet-stream")

    routes = [
        Route("/v2", server_metadata),
        Route("/v2/health/live", live),
        Route("/v2/health/ready", ready),
    ]
    for base in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        routes += [
            Route(base, model_metadata),
            Route(f"{base}/ready", model_ready),
            Route(f"{base}/infer", infer, methods=["POST"]),
        ]
    return routes


def _predictions(results: list[Result]) -> list[Prediction]:
    """The results, if every photo has one: outputs have no gaps. Raises RequestError."""
    predictions: list[Prediction] = []
    for number, result in enumerate(results):
        if isinstance(result, Prediction):
            predictions.append(result)
        else:
            status, message = status_of([result]), f"Photo {number}: {result.reason}"
            raise RequestError(status, None, message, AGAIN if status == 503 else None)
    return predictions
