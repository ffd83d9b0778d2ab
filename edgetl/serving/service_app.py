"""The ASGI application of ``edgetl serve``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from edgetl._version import __version__
from edgetl.serving.inference_protocol import InferenceProtocol
from edgetl.serving.json_line import JsonLine
from edgetl.serving.page_files import page_routes
from edgetl.serving.photo_service import PhotoService
from edgetl.serving.predict_endpoint import predict_route
from edgetl.serving.request_errors import RequestError, error_response, failed_response
from edgetl.serving.request_guard import RequestGuard
from edgetl.serving.served_models import ServedModels
from edgetl.serving.service_settings import ServiceSettings

_OPENAPI = Path(__file__).with_name("openapi.json")


def service_app(settings: ServiceSettings, models: ServedModels) -> ASGIApp:
    """The application that classifies the photos of requests with ``models``."""
    service = PhotoService(settings, models)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        watcher = asyncio.create_task(service.watch())
        yield
        watcher.cancel()
        service.close()

    app = Starlette(
        routes=[predict_route(service), *InferenceProtocol(service).routes(), *_routes(service)],
        exception_handlers={
            RequestError: error_response,
            HTTPException: error_response,
            ClientDisconnect: _no_one_reads_this,
            Exception: failed_response,
        },
        lifespan=lifespan,
    )
    return RequestGuard(app, service.metrics, settings.token, settings.only_here)


def _routes(service: PhotoService) -> list[Route]:
    description = json.loads(_OPENAPI.read_text(encoding="utf-8"))
    description["info"]["version"] = __version__

    async def healthz(_: Request) -> Response:
        return JsonLine({"models": {model.name: model.version for model in service.models}})

    def metrics(_: Request) -> Response:  # not async: in a thread, since it reads files
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    async def openapi(_: Request) -> Response:
        return JsonLine(description)

    return [
        Route("/healthz", healthz),
        Route("/metrics", metrics),
        Route("/openapi.json", openapi),
        *page_routes("classify"),
    ]


async def _no_one_reads_this(request: Request, _: Exception) -> Response:
    return Response(status_code=499)
