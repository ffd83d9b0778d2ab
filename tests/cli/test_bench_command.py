"""``edgetl bench``: the figures are there and consistent; their size depends on the machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edgetl import Predictor
from edgetl.cli.main import command as program
from edgetl.errors import ImageError, RuntimeUnavailableError
from edgetl.runtime.inference.benchmark import bench, fresh_process


def run(*arguments: object) -> Result:
    return CliRunner().invoke(program, ["bench", *map(str, arguments)])


def test_the_table(tiny_bundle: Path) -> None:
    result = run(tiny_bundle, "--runs", 3)
    assert result.exit_code == 0, result.output
    names = [line.split()[0] for line in result.stdout.splitlines() if line]
    assert names == [
        *("machine", "software", "ms", "decode", "resize", "model", "total"),
        *("throughput", "cold", "peak", "threads", "batch"),
    ]
    assert "over 3 runs, 3 photos" in result.stdout


def test_as_json(tiny_bundle: Path, photo_folder: Path) -> None:
    result = run(tiny_bundle, "--images", photo_folder, "--runs", 4, "--json", "--threads", 1)
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout)
    assert values["photos"] == len(list(photo_folder.iterdir()))
    for stage in ("decode", "resize", "model", "total"):
        timing = values["stages"][stage]
        assert 0 < timing["p50"] <= timing["p95"] <= timing["p99"]
        assert timing["count"] == 4
    assert values["machine"]["provider"] == "CPUExecutionProvider"
    assert values["machine"]["cores"] >= 1
    assert values["cold_start"] > 0
    assert 10e6 < values["cold_memory"] < 1e9
    assert values["throughput"] > 0
    assert "1" in values["threads"]
    assert list(values["batches"]) == ["1", "2", "4", "8", "16"]


def test_a_lone_model_needs_photos(tiny_bundle: Path, photo_folder: Path) -> None:
    result = run(tiny_bundle / "model.onnx")
    assert result.exit_code == 2
    assert "Name a folder with --images" in result.stderr
    one = run(tiny_bundle / "model.onnx", "--images", photo_folder / "0-64x48.jpg", "--runs", 2)
    assert one.exit_code == 0, one.output


def test_an_unreadable_photo_is_an_error(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"x")
    result = run(tiny_bundle, "--images", tmp_path, "--runs", 2)
    assert result.exit_code == 1
    assert result.stderr.count("bad.jpg") == 1
    with pytest.raises(ImageError, match=r"bad\.jpg"):
        bench(Predictor(tiny_bundle), [tmp_path / "bad.jpg"], runs=2)


def test_max_pixels_applies_to_the_fresh_process_too(tiny_bundle: Path, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (64, 50)).save(tmp_path / "large.png")
    assert (
        bench(Predictor(tiny_bundle, max_pixels=3200), [tmp_path / "large.png"], runs=3).photos == 1
    )
    with pytest.raises(RuntimeUnavailableError, match=r"large\.png: .*3,?200 pixels"):
        fresh_process(Predictor(tiny_bundle, max_pixels=3199), tmp_path / "large.png")
