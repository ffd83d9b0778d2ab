"""``edgetl serve``: models as an HTTP service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgetl.cli.options.model_options import given_options, model_options
from edgetl.cli.options.option_types import Number
from edgetl.system.message_text import printable


@click.command(short_help="Answer photos over HTTP.")
@click.argument("models", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="Port to listen on; 0: a free one.",
)
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Answer only requests with the token in this file's first line.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Processes that share the port.",
)
@click.option(
    "--queue",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Photos that may wait in a process; more are refused.",
)
@click.option(
    "--max-wait-ms",
    type=Number(0, 10_000),
    default=2,
    show_default=True,
    help="Milliseconds that a photo waits on a GPU for others to run with it.",
)
@click.option(
    "--timeout",
    type=Number(0, 86_400, min_open=True),
    default=30,
    show_default=True,
    help="Seconds for receiving a request, and for answering it.",
)
@click.option(
    "--max-body",
    type=click.IntRange(1, 1 << 20),
    default=32,
    show_default=True,
    help="Largest request, MiB.",
)
@model_options
def command(
    models: tuple[Path, ...],
    host: str,
    port: int,
    token_file: Path | None,
    workers: int,
    queue: int,
    max_wait_ms: float,
    timeout: float,
    max_body: int,
    **options: Any,
) -> None:
    """Answer photos that are sent over HTTP, with MODELS, bundle folders or lone model.onnx files.

    POST /predict takes a photo and answers what `edgetl predict --json` prints; below /v2 is the
    Open Inference Protocol; GET / is a page to try it; /metrics is for Prometheus. A model that is
    replaced on disk is taken without a pause once it passes its self-test. SIGTERM ends the service
    when it has answered what it received. Needs the extra serve, and no torch.

    \b
    Example:
      edgetl serve exported/pets
      edgetl serve exported/pets exported/digits --host 0.0.0.0 --token-file token
    """
    from edgetl.system.missing_package import require_packages

    needed = ("starlette", "uvicorn", "httptools", "prometheus_client", "python_multipart")
    require_packages("edgetl serve", "serve", *needed)
    from edgetl.serving.server import run_service
    from edgetl.serving.service_settings import ServiceSettings, model_names, read_token

    is_local = _is_loopback(host)
    settings = ServiceSettings(
        model_names(list(models)),
        {"threads": 1, **given_options(options)},
        workers=workers,
        queue=queue,
        max_wait=max_wait_ms / 1000,
        timeout=timeout,
        max_body=max_body << 20,
        token=None if token_file is None else read_token(token_file),
        only_here=is_local,
    )

    def print_address(address: str) -> None:
        if not is_local and token_file is None:
            click.echo(
                "Warning: whoever can reach this machine may use the service. "
                "--token-file FILE lets in only those who know a token.",
                err=True,
            )
        names = ", ".join(map(printable, settings.models))
        click.echo(f"Serving {names} at {address}")

    run_service(settings, host, port, print_address)


def _is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens there."""
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
