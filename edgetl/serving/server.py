"""The processes of ``edgetl serve``, which share one port, from their start to their end."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import uvicorn
from starlette.types import ASGIApp
from uvicorn.supervisors import Multiprocess

from edgetl.errors import EdgetlError
from edgetl.serving.connection import TimedConnection
from edgetl.serving.listener import BACKLOG, listen
from edgetl.serving.served_models import ServedModels
from edgetl.serving.service_settings import ServiceSettings
from edgetl.system.temporary_folder import scratch_folder

_log = logging.getLogger(__name__)
_RESTART = 1.0  # seconds before a process that can't start is tried again


def run_service(
    settings: ServiceSettings, host: str, port: int, on_start: Callable[[str], object]
) -> None:
    """Answer requests until Ctrl-C or SIGTERM; those that were received are still answered.

    host, port  to listen on; port 0: a free one
    on_start    called with the service's address

    Raises EdgetlError if the port can't be used, or as ``ServedModels`` does.
    """
    models = ServedModels(settings.models, settings.predictor, settings.max_wait)
    with listen(host, port) as listener:
        on_start(_address(listener))
        _show_log()
        if settings.workers == 1:
            app = partial(_single_app, settings, models)
            with suppress(KeyboardInterrupt):  # uvicorn sends the signal once more at its end
                uvicorn.Server(_config(settings, app)).run([listener])
            return
        del models  # each process opens its own
        with scratch_folder("edgetl-metrics") as folder:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
            Multiprocess(_config(settings, partial(_worker_app, settings)), [listener]).run()


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _config(settings: ServiceSettings, app: Callable[[], ASGIApp]) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        factory=True,
        http=TimedConnection,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        workers=settings.workers,
        timeout_graceful_shutdown=int(settings.timeout) + 1,
    )


def _single_app(settings: ServiceSettings, models: ServedModels) -> ASGIApp:
    from edgetl.serving.service_app import service_app

    return service_app(settings, models)


def _worker_app(settings: ServiceSettings) -> ASGIApp:
    """The application of one of several processes."""
    _show_log()
    # Not above: its metrics look at import time for the folder that the processes share.
    from edgetl.serving.service_app import service_app

    try:
        return service_app(settings)
    except EdgetlError as error:  # the model is gone or damaged since the service was started
        _log.error("%s", error.message)
        time.sleep(_RESTART)
        raise SystemExit(1) from error  # another process is started in place of this one


def _show_log() -> None:
    """What happens is logged to stderr, one line each."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
