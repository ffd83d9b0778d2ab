"""``edgetl serve``: its options, and what it can't serve."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from edgetl.cli.main import command as program
from edgetl.serving import server
from edgetl.serving.service_settings import ServiceSettings

TOKEN = "0123456789abcdef"


def serve(*arguments: object) -> Result:
    return CliRunner().invoke(program, ["serve", *map(str, arguments)])


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a service was started with, in place of starting it."""
    found: dict[str, Any] = {}

    def run_service(settings: ServiceSettings, host: str, port: int, on_start: Any) -> None:
        found.update(settings=settings, host=host, port=port)
        on_start(f"http://{host}:{port}/")

    monkeypatch.setattr(server, "run_service", run_service)
    return found


def test_by_default_it_is_for_this_machine(tiny_bundle: Path, started: dict[str, Any]) -> None:
    done = serve(tiny_bundle)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == "Serving tiny at http://127.0.0.1:8000/\n"
    settings = started["settings"]
    assert settings.only_here and settings.token is None
    assert settings.models == {"tiny": tiny_bundle}
    assert settings.predictor["threads"] == 1


def test_every_loopback_address_is_for_this_machine(
    tiny_bundle: Path, started: dict[str, Any]
) -> None:
    assert serve(tiny_bundle, "--host", "127.0.0.2").stderr == ""
    assert started["settings"].only_here


def test_every_option_arrives(tiny_bundle: Path, tmp_path: Path, started: dict[str, Any]) -> None:
    (tmp_path / "token").write_text(TOKEN)
    options = "--host 0.0.0.0 --port 1 --workers 3 --queue 5 --max-wait-ms 4 --timeout 1.5"
    options += f" --max-body 2 --threads 2 --max-pixels 9 --token-file {tmp_path / 'token'}"
    done = serve(tiny_bundle, tiny_bundle / "model.onnx", *options.split())
    assert done.stderr == ""
    assert (started["host"], started["port"]) == ("0.0.0.0", 1)
    settings = started["settings"]
    assert list(settings.models) == ["tiny", "model"]
    assert (settings.workers, settings.queue, settings.max_body) == (3, 5, 2 << 20)
    assert (settings.max_wait, settings.timeout) == (0.004, 1.5)
    assert (settings.token, settings.only_here) == (TOKEN, False)
    assert (settings.predictor["threads"], settings.predictor["max_pixels"]) == (2, 9)


def test_for_others_without_a_token_there_is_a_warning(
    tiny_bundle: Path, started: dict[str, Any]
) -> None:
    done = serve(tiny_bundle, "--host", "0.0.0.0")
    assert done.stderr.startswith("Warning: whoever can reach this machine")
    assert "--token-file" in done.stderr


def test_what_cannot_be_served_is_one_clear_sentence(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for arguments, expected in (
            ((tiny_bundle, "--port", port), f"Port {port} can't be used on 127.0.0.1: Address"),
            ((tiny_bundle, "--host", "no.such.host.invalid"), "can't be used on no.such"),
            ((tiny_bundle, "--host", "300.1.1.1"), "--host takes an address of this machine"),
            ((tiny_bundle, "--host", "192.0.2.1"), "--host takes an address of this machine"),
            ((tiny_bundle, "--host", "a" * 70), "there is no such host"),
            ((tmp_path / "empty",), "it is not a bundle"),
            ((tiny_bundle, tiny_bundle), "would both be served as 'tiny'"),
            ((tiny_bundle, "--token-file", tiny_bundle / "model.onnx"), "token"),
        ):
            done = serve(*arguments)
            assert (done.exit_code, done.stdout) == (1, "")
            assert done.stderr.startswith("Error: ") and expected in done.stderr


@pytest.mark.parametrize("option", ["--timeout", "--max-wait-ms", "--max-body"])
def test_numbers_that_no_clock_or_memory_has_are_refused(tiny_bundle: Path, option: str) -> None:
    done = serve(tiny_bundle, option, "inf" if option != "--max-body" else 10**15)
    assert done.exit_code == 2
    assert f"Invalid value for '{option}'" in done.stderr
