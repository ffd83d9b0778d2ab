"""``edgetl info`` and ``edgetl selftest``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edgetl.cli.main import command as program
from edgetl.runtime.bundle.bundle_folder import MANIFEST, Bundle, manifest_bytes


def run(*arguments: object, color: bool = False) -> Result:
    return CliRunner().invoke(program, list(map(str, arguments)), color=color)


def test_info_shows_what_is_in_a_bundle(tiny_bundle: Path) -> None:
    text = run("info", tiny_bundle).stdout
    for part in (
        "one matrix",
        "5: ",
        r'"line\nbreak"',
        "花",
        "bicubic",
        "accuracy     50.00%\n",
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


def rewrite(bundle: Path, **values: object) -> None:
    """Change the manifest and give it a valid checksum."""
    file = bundle / MANIFEST
    file.write_bytes(manifest_bytes({**json.loads(file.read_bytes()), **values}))


def test_info_formats_metrics_for_people(bundle_copy: Path) -> None:
    manifest = Bundle.open(bundle_copy).manifest
    metrics = {
        "accuracy": 0.995,
        "accuracy_interval": [0.972, 0.9991],
        "photos": 1200,
        "macro_f1": 0.98,
        "loss": 0.0224,
    }
    metrics |= {"epoch": 12, "midway": True}
    judged = {
        "accuracy": 0.99,
        "fp32_accuracy": 0.995,
        "agreement": 0.985,
        "drop": 0.5,
        "float_layers": ["a", "b"],
    }
    data = {"train": 4321, "val": 1200, "fingerprint": "0123456789abcdef" * 4}
    rewrite(
        bundle_copy,
        card={**manifest["card"], "metrics": metrics, "data": data},
        precisions={"int8": judged},
    )
    text = run("info", bundle_copy).stdout
    for line in (
        "accuracy     99.50% (97.2% to 99.9%) on 1,200 validation photos",
        "metrics      macro F1 98.00%, loss 0.0224, weights of epoch 12, "
        "averaged with the first ones",
        "int8         accuracy 99.00%, of fp32 99.50%, same label 98.50%, points lost 0.5, "
        "2 layers in float",
        "data         training photos 4,321, validation photos 1,200, fingerprint 0123456789ab",
    ):
        assert line in text.splitlines()
    values = json.loads(run("info", bundle_copy, "--json").stdout)
    assert values["card"]["metrics"] == metrics
    assert values["precisions"] == {"int8": judged}


@pytest.mark.parametrize("strange", [None, "words\x1b[31m\nof two lines", [], {"a": 1}, True])
def test_info_accepts_any_metrics(bundle_copy: Path, strange: object) -> None:
    card = Bundle.open(bundle_copy).manifest["card"]
    names = (
        "accuracy",
        "accuracy_interval",
        "photos",
        "loss",
        "fingerprint",
        "train",
        "float_layers",
    )
    values = dict.fromkeys(names, strange)
    rewrite(
        bundle_copy,
        card={**card, "metrics": values, "data": values},
        precisions={"int8": values, "fp16": strange},
    )
    result = run("info", bundle_copy)
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.stdout


def test_info_names_every_damaged_file(bundle_copy: Path) -> None:
    (bundle_copy / "golden" / "001.png").unlink()
    (bundle_copy / "golden" / "002.png").write_bytes(b"x")
    result = run("info", bundle_copy)
    assert result.exit_code == 1
    assert result.stdout == ""
    first, second, hint = result.stderr.splitlines()
    assert first.endswith("golden/001.png: it is missing")
    assert "golden/002.png: it has 1 bytes and should have" in second
    assert hint.startswith("Export it again")


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


def test_names_in_a_bundle_are_escaped_for_the_terminal(bundle_copy: Path) -> None:
    """Neither in results nor in an error."""
    manifest = json.loads((bundle_copy / MANIFEST).read_bytes())
    name = "golden/\x1b[31m\r001.png"
    (bundle_copy / "golden/001.png").rename(bundle_copy / name)
    for entry in manifest["golden"]:
        entry["file"] = entry["file"].replace("golden/001.png", name)
    manifest["files"][name] = manifest["files"].pop("golden/001.png")
    (bundle_copy / MANIFEST).write_bytes(manifest_bytes(manifest))
    passed = run("selftest", bundle_copy, color=True)  # as on a terminal: click strips no escape
    assert passed.exit_code == 0 and "\\x1b[31m\\r001.png" in passed.stdout
    assert "\x1b" not in passed.output
    (bundle_copy / name).write_bytes(b"x")
    failed = run("info", bundle_copy, color=True)
    assert failed.exit_code == 1 and "\x1b" not in failed.output, failed.output
    assert "\\x1b[31m\\r001.png" in failed.stderr


def test_selftest_as_json(bundle_copy: Path) -> None:
    passed = json.loads(run("selftest", bundle_copy, "--json").stdout)
    assert passed["passed"] is True
    assert passed["stage"] is None
    assert [result["file"] for result in passed["results"]] == [
        "golden/000.png",
        "golden/001.png",
        "golden/002.png",
    ]
    (bundle_copy / "golden" / "001.png").unlink()
    failed = run("selftest", bundle_copy, "--json")
    assert failed.exit_code == 1
    assert json.loads(failed.stdout)["stage"] == "files"


def test_selftest_with_another_tolerance(tiny_bundle: Path) -> None:
    assert run("selftest", tiny_bundle, "--tolerance", "1e-12").exit_code == 1
    assert (
        "tolerance 0.5 on probabilities"
        in run("selftest", tiny_bundle, "--tolerance", "0.5").stdout
    )


def test_selftest_needs_a_bundle(tiny_bundle: Path) -> None:
    assert run("selftest", tiny_bundle / "model.onnx").exit_code == 2
