"""The JavaScript module in Node, driven by requests."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from helpers.web_folder import MODULE, Node

_DRIVER = Path(__file__).parent / "driver.mjs"
_SECONDS = 120  # for all requests of a call; a decoder that hangs takes longer


@pytest.fixture(scope="session")
def node() -> Node:
    program = shutil.which("node")
    if program is None:
        pytest.skip("no Node here; .ci/run installs it")

    def run(*requests: dict[str, Any], module: Path = MODULE) -> list[Any]:
        # Optimising WebAssembly takes longer than what these tests run.
        done = subprocess.run(
            [program, "--expose-gc", "--liftoff-only", _DRIVER, module],
            input=json.dumps(requests),
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )
        assert done.returncode == 0 and not done.stderr, done.stderr
        results: list[Any] = json.loads(done.stdout)
        return results

    return run
