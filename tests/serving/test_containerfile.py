"""The image can't be built here; what its file says is compared with what there is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from click import Context
from helpers.services import service

from edgetl.cli.main import command as program

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker/Containerfile").read_text("utf-8").replace("\\\n", "")


def instruction(name: str) -> str:
    return re.findall(rf"^{name} (.*)$", TEXT, re.MULTILINE)[-1].strip()


def test_its_extras_and_its_command_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    (named,) = re.findall(r"\.whl\)\[([\w,]+)\]", TEXT)
    assert set(named.split(",")) <= set(extras["optional-dependencies"])
    shell, option, script, _ = json.loads(instruction("ENTRYPOINT"))
    assert (shell, option) == ("sh", "-c")
    serve = program.get_command(Context(program), "serve")
    assert serve is not None
    known = {flag for parameter in serve.params for flag in parameter.opts}
    assert set(re.findall(r"--[\w-]+", script)) <= known
    assert script.startswith("exec edgetl serve ")


def test_what_it_copies_is_not_ignored() -> None:
    kept = (ROOT / "docker/Containerfile.dockerignore").read_text("utf-8").split()
    for name in [line[1:] for line in kept if line.startswith("!")]:
        assert (ROOT / name).exists(), name
    assert "!exported" in kept and "BUNDLE=exported/" in TEXT


def test_it_checks_its_health(tiny_bundle: Path) -> None:
    _, option, code = json.loads(instruction("HEALTHCHECK").partition("CMD ")[2])
    assert option == "-c" and "127.0.0.1:8000/" in code
    with service(tiny_bundle) as (address, process):
        code = code.replace("http://127.0.0.1:8000", address)
        assert subprocess.run([sys.executable, "-c", code]).returncode == 0
        process.terminate()
        process.wait(30)
        done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
        assert done.returncode != 0
