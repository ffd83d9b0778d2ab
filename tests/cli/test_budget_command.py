"""``edgetl train`` with a budget: what is printed."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result
from helpers.device_profiles import model, write

from edgetl.cli.main import command as program

HEAD = ["--weights", "none", "--device", "cpu", "--strategy", "features", "--feature-cache", "off"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(program, ["train", *map(str, arguments)])


def test_the_export_that_is_printed_follows_the_budget(two_parts: Path, tmp_path: Path) -> None:
    profile = write(tmp_path / "pi.json", model(32, 20.0), model(32, 9.0, precision="int8"))
    for budget, precision in (("10ms", " --precision int8"), ("20ms", "")):
        out = tmp_path / budget
        done = run(two_parts, "-o", out, "--budget", budget, "--profile", profile, *HEAD)
        assert done.exit_code == 0, done.output
        (line,) = (line for line in done.stdout.splitlines() if line.startswith("Next: "))
        assert line == f"Next: edgetl export {out} -o exported/{out.name}{precision}"
        assert "Chosen among 1 candidate: timm/small_backbone@32" in done.stderr


def test_what_does_not_fit_is_an_error_that_says_what_would(
    two_parts: Path, tmp_path: Path
) -> None:
    profile = write(tmp_path / "pi.json", model(32, 20.0))
    done = run(two_parts, "-o", tmp_path / "run", "--budget", "1ms", "--profile", profile, *HEAD)
    assert done.exit_code == 1
    assert "the fastest, timm/small_backbone@32 fp32, takes 20.0 ms" in done.stderr


def test_a_learning_rate_is_found_for_one_backbone(two_parts: Path, tmp_path: Path) -> None:
    done = run(two_parts, "-o", tmp_path / "run", "--find-lr", "--budget", "1ms")
    assert done.exit_code == 2
    assert "--find-lr needs one --backbone" in done.stderr
