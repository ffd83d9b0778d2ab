"""The Open Inference Protocol v2: what clients of KServe, Triton and MLServer speak."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edgetl._version import __version__
from edgetl.runtime.inference.prediction import Prediction, Result
from edgetl.serving.inference_tensors import (
    HEADER_LENGTH,
    InferenceError,
    read_request,
    tensors,
    write_response,
)
from edgetl.serving.photo_service import PhotoService, status_of
from edgetl.serving.request_errors import AGAIN, RequestError
from edgetl.serving.served_models import ServedModel

_LONG = 1 << 16  # bytes of a body that is read in a thread, as numbers in JSON take time


class InferenceProtocol:
    """What is below ``/v2``. Its models and photos are those of ``service``."""

    def __init__(self, service: PhotoService) -> None:
        self._service = service
        self._one_by_one = asyncio.Lock()  # numbers in JSON become many times as long in memory

    def routes(self) -> list[Route]:
        """All of them, with and without a version."""
        routes = [
            Route("/v2", self.server_metadata),
            Route("/v2/health/live", self.live),
            Route("/v2/health/ready", self.ready),
        ]
        for base in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
            routes += [
                Route(base, self.model_metadata),
                Route(f"{base}/ready", self.model_ready),
                Route(f"{base}/infer", self.infer, methods=["POST"]),
            ]
        return routes

    async def server_metadata(self, _: Request) -> Response:
        """``GET /v2``: name, version and extensions of the server."""
        extensions = ["binary_tensor_data", "classification"]
        return JSONResponse({"name": "edgetl", "version": __version__, "extensions": extensions})

    async def live(self, _: Request) -> Response:
        """``GET /v2/health/live``."""
        return JSONResponse({"live": True})

    async def ready(self, _: Request) -> Response:
        """``GET /v2/health/ready``."""
        return JSONResponse({"ready": True})

    async def model_ready(self, request: Request) -> Response:
        """``GET /v2/models/NAME/ready``."""
        return JSONResponse({"name": self._model(request).name, "ready": True})

    async def model_metadata(self, request: Request) -> Response:
        """``GET /v2/models/NAME``: names, types and shapes of inputs and outputs."""
        model = self._model(request)
        card = model.predictor.card
        named = {"name": model.name, "versions": [model.version], "platform": "edgetl"}
        return JSONResponse({**named, **tensors(card), "labels": card.labels})

    async def infer(self, request: Request) -> Response:
        """``POST /v2/models/NAME/infer``, in JSON or with the binary extension."""
        model = self._model(request)
        card, header = model.predictor.card, request.headers.get(HEADER_LENGTH)
        async with self._service.bodies.receive(request) as body:
            try:
                if len(body) < _LONG:
                    wanted = read_request(body, header, card)
                else:
                    async with self._one_by_one:
                        wanted = await asyncio.to_thread(read_request, body, header, card)
            except InferenceError as error:
                raise RequestError(400, "request", str(error)) from error
            results, headers = await self._service.classify(request, model, wanted.photos)
        described = {"model_name": model.name, "model_version": model.version}
        content, length = write_response(described, wanted, _predictions(results), card)
        if length is None:
            return Response(content, headers=headers, media_type="application/json")
        headers[HEADER_LENGTH] = str(length)
        return Response(content, headers=headers, media_type="application/octet-stream")

    def _model(self, request: Request) -> ServedModel:
        """The model of the address. Raises RequestError."""
        model = self._service.model(request.path_params["name"])
        version = request.path_params.get("version", model.version)
        if version != model.version:
            message = f"{model.name} has no version {version!r}; it is {model.version} now."
            raise RequestError(404, "request", message)
        return model


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
