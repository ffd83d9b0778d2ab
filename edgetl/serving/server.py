"""A service from its start to its end, in one process or in several that share its port."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing import connection, get_context, parent_process

import uvicorn

from edgetl.errors import EdgetlError
from edgetl.serving.connection import TimedConnection
from edgetl.serving.listening_socket import BACKLOG, listen
from edgetl.serving.served_models import ServedModels
from edgetl.serving.service_settings import METRICS_FOLDER, ServiceSettings
from edgetl.system.message_text import printable
from edgetl.system.temporary_folder import scratch_folder

_log = logging.getLogger(__name__)
_PAUSE = 1.0  # seconds before a process takes the place of one that ended


def run_service(
    settings: ServiceSettings, host: str, port: int, on_start: Callable[[str], object]
) -> None:
    """Answer requests until Ctrl-C or SIGTERM; those that were received are still answered.

    host, port  to listen on; port 0: a free one
    on_start    called with the service's address

    Raises EdgetlError if the port can't be used, or as ``ServedModels`` does.
    """
    models = ServedModels(settings)
    with listen(host, port) as listener:
        on_start(_address(listener))
        if settings.workers == 1:
            _serve(settings, listener, models)
            return
        del models  # each process opens its own
        with scratch_folder("edgetl-metrics") as folder:
            os.environ[METRICS_FOLDER] = str(folder)
            _keep_running(settings.workers, partial(_work, settings, listener))


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _keep_running(count: int, work: Callable[[], None]) -> None:
    """Run ``work`` in ``count`` processes until Ctrl-C or SIGTERM; one that ends is replaced."""
    context = get_context("spawn")  # a fork would share the threads' locks
    workers = [context.Process(target=work) for _ in range(count)]
    try:
        for worker in workers:
            worker.start()
        while connection.wait([worker.sentinel for worker in workers]):
            time.sleep(_PAUSE)
            for index, worker in enumerate(workers):
                if not worker.is_alive():
                    workers[index] = context.Process(target=work)
                    workers[index].start()
    except KeyboardInterrupt:
        pass
    finally:
        started = [worker for worker in workers if worker.pid is not None]
        for worker in started:
            worker.terminate()
        for worker in started:
            worker.join()


def _work(settings: ServiceSettings, listener: socket.socket) -> None:
    """One of several processes."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        models = ServedModels(settings)
    except EdgetlError as error:  # a model is gone or damaged since the service was started
        _show_log()
        _log.error("%s", error.message)
        return
    _serve(settings, listener, models)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _serve(settings: ServiceSettings, listener: socket.socket, models: ServedModels) -> None:
    _show_log()
    # Not above: its metrics look at import time for the folder that the processes share.
    from edgetl.serving.service_app import service_app

    config = uvicorn.Config(
        service_app(settings, models),
        http=TimedConnection,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=1,
        timeout_graceful_shutdown=int(settings.timeout) + 1,
    )
    with suppress(KeyboardInterrupt):  # uvicorn sends the signal once more at its end
        _Server(config).run([listener])


class _Server(uvicorn.Server):
    """Accepts as many connections at a time as the backlog of its configuration says.

    asyncio takes that number for the length of the system's queue, too. With 1, processes that
    share the port share the connections as well: the first to wake would accept all that wait.
    And where the system has no more files to open, asyncio logs so once a second, not for each.
    """

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(BACKLOG)


def _show_log() -> None:
    """What happens is logged to stderr, one line each; not what a client sends."""
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.INFO)
    for name in ("uvicorn", "python_multipart"):
        logging.getLogger(name).setLevel(logging.ERROR)


class PrintableFormatter(logging.Formatter):
    """Escapes what could steer a terminal: names may come from a bundle that is not trusted."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's own name
        record.message = printable(record.message)
        return super().formatMessage(record)
