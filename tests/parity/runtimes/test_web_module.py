"""The rows of the JavaScript module: the same stages in Node, Chromium and Firefox."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import psutil
import pytest
from helpers import tampering
from helpers.small_export import Check, Exported

from edgetl.errors import RuntimeUnavailableError
from edgetl.exporting.web_folder import read_ort, web_files
from edgetl.parity.browser import PROGRAMS, find_browser
from edgetl.parity.results import CheckResult
from edgetl.parity.runtimes.web_module import Browser
from edgetl.runtime.bundle.bundle_folder import MANIFEST

# A module in front of the real one, which changes what it shows.
_IN_FRONT = """
import * as real from "./real.js";
export * from "./real.js";
export class Predictor {
  static async load(...options) {
    const predictor = await real.Predictor.load(...options);
    return {
      async stages(photo) {
        const stages = await predictor.stages(photo);
        CHANGE
        return stages;
      },
    };
  }
}
"""


@pytest.fixture
def web(copied: Exported, node_modules: Path) -> Exported:
    """The small export with its ``web/``."""
    manifest = json.loads((copied.folder / MANIFEST).read_bytes())
    files = {"model.onnx": (copied.folder / "model.onnx").read_bytes()}
    ort = read_ort(node_modules / "onnxruntime-web")
    for name, content in web_files(manifest, files, (), ort).items():
        path = copied.folder / "web" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    tampering.sign(copied.folder)
    return copied


@pytest.fixture(scope="module")
def runtimes() -> list[str]:
    """Those that can run here."""
    found = ["node"] if shutil.which("node") else []
    for browser in PROGRAMS:
        try:
            find_browser(browser)
        except RuntimeUnavailableError:
            continue
        found.append(browser)
    if not found:
        pytest.skip("no node and no browser here; .ci/run installs them")
    return found


def departures(result: CheckResult) -> dict[str, str | None]:
    return {run.name: run.departure for run in result.runtimes}


def put_in_front(exported: Exported, change: str) -> None:
    module = exported.folder / "web/edgetl.js"
    module.rename(module.with_name("real.js"))
    module.write_text(_IN_FRONT.replace("CHANGE", change))
    tampering.sign(exported.folder / "web")
    tampering.sign(exported.folder)


def test_they_show_what_the_trained_network_shows(
    web: Exported, run_check: Check, runtimes: list[str]
) -> None:
    result = run_check(web.subject(), *runtimes)
    assert result.passed, result.failures
    for run in result.runtimes:
        shown = [stage.stage for stage in run.stages]
        assert shown == ["decoded", "resized", "normalized", "logits", "probabilities"]
        assert run.photos == 7


def test_a_changed_weight_fails_at_logits(
    web: Exported, run_check: Check, runtimes: list[str]
) -> None:
    tampering.tamper_with_onnx(web.folder / "web", web.card.spec, tampering.weight)
    tampering.sign(web.folder)
    assert departures(run_check(web.subject(), *runtimes[:2])) == dict.fromkeys(
        runtimes[:2], "logits"
    )


def test_another_mean_fails_at_normalized(
    web: Exported, run_check: Check, runtimes: list[str]
) -> None:
    tampering.tamper_with_onnx(web.folder / "web", web.card.spec, tampering.mean)
    tampering.sign(web.folder)
    assert departures(run_check(web.subject(), runtimes[0])) == {runtimes[0]: "normalized"}


def test_another_resize_fails_at_resized(
    web: Exported, run_check: Check, runtimes: list[str]
) -> None:
    for folder in (web.folder / "web", web.folder):
        tampering.change_spec(folder, web.card, interpolation="bilinear")
    assert departures(run_check(web.subject(), runtimes[0])) == {runtimes[0]: "resized"}


def test_another_decoder_fails_at_decoded(
    web: Exported, run_check: Check, runtimes: list[str]
) -> None:
    put_in_front(web, "stages.decoded.data[5] ^= 1;")
    assert departures(run_check(web.subject(), runtimes[-1])) == {runtimes[-1]: "decoded"}


def test_labels_in_another_order_fail(web: Exported, run_check: Check, runtimes: list[str]) -> None:
    card = {**web.card.to_dict(), "labels": list(web.card.labels)[::-1]}
    tampering.sign(web.folder / "web", card=card)
    tampering.sign(web.folder)
    (run, *_) = run_check(web.subject(), *runtimes).runtimes
    assert run.status == "failed" and "model card differs" in run.reason


def test_a_module_that_fails_or_hangs_ends_with_a_message(
    web: Exported, run_check: Check, runtimes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = psutil.Process().children()
    monkeypatch.setattr(Browser, "seconds", 15.0)
    put_in_front(web, 'console.warn("here it hangs"); await new Promise(() => {});')
    browser = next((name for name in runtimes if name != "node"), None)
    if browser is not None:
        (run,) = run_check(web.subject(), browser).runtimes
        assert run.status == "failed" and "did not answer within 15 seconds" in run.reason
        assert "here it hangs" in run.reason
    (web.folder / "web/real.js").write_text("this is no JavaScript")
    for run in run_check(web.subject(), *runtimes).runtimes:
        assert run.status == "failed" and "SyntaxError" in run.reason, run.reason
    assert psutil.Process().children() == before
