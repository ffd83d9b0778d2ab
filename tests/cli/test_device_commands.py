"""``edgetl info`` and ``edgetl selftest``."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from edgetl.cli.main import command as program


def run(*arguments: object) -> Result:
    return CliRunner().invoke(program, list(map(str, arguments)))


def test_info_tells_what_is_in_a_bundle(tiny_bundle: Path) -> None:
    text = run("info", tiny_bundle).stdout
    for part in (
        "one matrix",
        "5: ",
        r'"line\nbreak"',
        "花",
        "bicubic",
        "accuracy 0.5",
        "maker 1.0",
        "model.onnx",
        "golden/  ",
    ):
        assert part in text


def test_info_as_json(tiny_bundle: Path) -> None:
    values = json.loads(run("info", tiny_bundle, "--json").stdout)
    assert values["card"]["labels"][3] == "花"
    assert values["created"] == "2025-01-01T00:00:00+00:00"
    assert values["models"] == {"fp32": "model.onnx"}
    assert values["files"]["model.onnx"] == (tiny_bundle / "model.onnx").stat().st_size


def test_info_of_a_lone_model(tiny_bundle: Path) -> None:
    assert "花" in run("info", tiny_bundle / "model.onnx").stdout
    values = json.loads(run("info", tiny_bundle / "model.onnx", "--json").stdout)
    assert values["created"] is None
    assert list(values["files"]) == ["model.onnx"]


def test_info_finds_damage(bundle_copy: Path) -> None:
    (bundle_copy / "golden" / "001.png").unlink()
    result = run("info", bundle_copy)
    assert result.exit_code == 1
    assert "golden/001.png: it is missing" in result.stderr


def test_selftest_passes(tiny_bundle: Path) -> None:
    result = run("selftest", tiny_bundle)
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["ok", "ok", "ok", "passed:"]


def test_selftest_names_the_file_and_the_stage(bundle_copy: Path) -> None:
    (bundle_copy / "golden" / "001.png").write_bytes(b"x")
    result = run("selftest", bundle_copy)
    assert result.exit_code == 1
    assert "files          golden/001.png" in result.stdout
    assert "FAILED at files: 2 of 3 agree" in result.stdout


def test_selftest_as_json(bundle_copy: Path) -> None:
    passed = json.loads(run("selftest", bundle_copy, "--json").stdout)
    assert passed["passed"] is True
    assert passed["stage"] is None
    assert [result["file"] for result in passed["results"]] == ["golden/000.png", "golden/001.png", "golden/002.png"]
    (bundle_copy / "golden" / "001.png").unlink()
    failed = run("selftest", bundle_copy, "--json")
    assert failed.exit_code == 1
    assert json.loads(failed.stdout)["stage"] == "files"


def test_selftest_with_another_tolerance(tiny_bundle: Path) -> None:
    assert run("selftest", tiny_bundle, "--tolerance", "1e-12").exit_code == 1
    assert "tolerance 0.5 on probabilities" in run("selftest", tiny_bundle, "--tolerance", "0.5").stdout


def test_selftest_needs_a_bundle(tiny_bundle: Path) -> None:
    assert run("selftest", tiny_bundle / "model.onnx").exit_code == 2
