"""The exported page in real browsers: what it answers, what it refuses, and without a network."""

from __future__ import annotations

import json
import re
import shutil
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from helpers.tiny_network import LABELS, scored_card, tapped_network, tiny_detector

from edgetl import Predictor
from edgetl.errors import RuntimeUnavailableError
from edgetl.exporting.bundle_writer import export_bundle
from edgetl.exporting.deployment import Deployment
from edgetl.exporting.precision.reduced_precision import PrecisionSettings
from edgetl.parity.browser import PROGRAMS, BrowserPage, find_browser
from edgetl.runtime.bundle.bundle_folder import file_entries, manifest_bytes

# Runs what the tests send it beside the page, which is in a frame: both have the same origin.
_HARNESS = b"""<!doctype html><title>Harness</title><iframe></iframe><script type="module">
const frame = document.querySelector("iframe");
frame.style.height = "900px";
const until = async (condition) => {
  const end = performance.now() + SECONDS * 1000;
  while (performance.now() < end) {
    const value = condition();
    if (value) return value;
    await new Promise((resolve) => setTimeout(resolve, 30));
  }
  throw new Error(`never: ${condition}`);
};
const page = {
  frame,
  until,
  $: (selector) => frame.contentDocument.querySelector(selector),
  text: (selector) => page.$(selector).textContent,
  async open(url, width = 800) {
    frame.style.width = `${width}px`;
    await new Promise((resolve) => { frame.onload = resolve; frame.src = url; });
    await until(() => !page.$("#files").disabled || !page.$("#error").hidden);
    return page.$("#error").hidden ? null : page.text("#error");
  },
  async answers(count) {
    await until(() => frame.contentDocument.querySelectorAll(".answer").length === count);
    await until(() => [...frame.contentDocument.images].every((image) => image.complete));
    return [...frame.contentDocument.querySelectorAll(".answer")].map((card) => ({
      file: card.querySelector(".file").textContent,
      label: card.querySelector(".label").textContent,
      note: card.querySelector(".note")?.textContent ?? null,
      bars: [...card.querySelectorAll(".bars li")].map((bar) =>
        [...bar.querySelectorAll("span")].map((part) => part.textContent)),
      picture: card.querySelector("img")?.naturalWidth ?? null,
    }));
  },
  transfer(files) {
    const transfer = new frame.contentWindow.DataTransfer();
    for (const [name, content] of Object.entries(files)) {
      const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt());
      transfer.items.add(new frame.contentWindow.File([bytes], name));
    }
    return transfer;
  },
  async selftest() {
    page.$("#selftest").click();
    await until(() => page.$("#verdict").className);
    return [page.text("#verdict"), page.text("#failures")];
  },
};
const AsyncFunction = page.open.constructor;
for (;;) {
  const job = await fetch("job");
  if (job.status === 204) continue;
  const answer = await new AsyncFunction("page", await job.text())(page)
    .then((value) => ({ value }), (error) => ({ error: `${error}\\n${error.stack}` }));
  await fetch("answer", { method: "POST", body: JSON.stringify(answer) });
}
</script>"""
_SECONDS = 60  # until something on the page has happened
_CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
_FIREFOX_CAMERA = {
    "media.navigator.streams.fake": True,
    "media.navigator.permission.disabled": True,
}
Run = Callable[..., Any]  # JavaScript with ``page`` → its value


@dataclass(frozen=True)
class Site:
    """A bundle, and a folder with copies of its page, one of them below ``good/``."""

    bundle: Path
    folder: Path

    def copy(self, name: str) -> Path:
        return Path(shutil.copytree(self.bundle / "web", self.folder / name))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, photo_folder: Path, node_modules: Path) -> Site:
    """A model that takes every other golden photo for unknown."""
    folder = tmp_path_factory.mktemp("site")
    photos = sorted(photo_folder.iterdir())
    options: dict[str, Any] = {
        "golden": photos[:4],
        "formats": ["onnx"],
        "precisions": ("fp32", "int8"),
        "precision_settings": PrecisionSettings(photos, [(photos[0], 0)], max_accuracy_drop=100),
    }
    made = Deployment(tapped_network(), scored_card(), tiny_detector())
    first = export_bundle(made, folder / "pets", **options).folder
    scores = sorted(answer.ood_score or 0.0 for answer in Predictor(first).batch(photos))
    assert made.card.unknown is not None
    limits = replace(made.card.unknown, threshold=float(np.mean(scores[3:5])))
    made = replace(made, card=replace(made.card, unknown=limits))
    ort = node_modules / "onnxruntime-web"
    site = Site(export_bundle(made, folder / "pets", **options, web=True, ort=ort).folder, folder)
    site.copy("good")
    return site


@pytest.fixture(scope="module")
def open_browser(site: Site) -> Iterator[Callable[..., BrowserPage]]:
    opened = []

    def start(kind: str, **preferences: Any) -> BrowserPage:
        try:
            find_browser(kind)
        except RuntimeUnavailableError:
            pytest.skip(f"no {kind} here; .ci/run installs one")
        page = BrowserPage(
            kind,
            site.folder,
            "harness.html",
            pages={"harness.html": _HARNESS.replace(b"SECONDS", str(_SECONDS).encode())},
            options=_CAMERA,
            preferences={**_FIREFOX_CAMERA, **preferences},
        )
        opened.append(page)
        return page

    yield start
    for page in opened:
        page.close()


@pytest.fixture(scope="module", params=list(PROGRAMS))
def browser(
    request: pytest.FixtureRequest, open_browser: Callable[..., BrowserPage]
) -> BrowserPage:
    return open_browser(request.param)


@pytest.fixture(scope="module")
def run(browser: BrowserPage) -> Run:
    return running(browser)


def running(browser: BrowserPage) -> Run:
    def run(code: str, **values: Any) -> Any:
        constants = "".join(f"const {name} = {json.dumps(v)};" for name, v in values.items())
        browser.send(f"{constants}\n{code}".encode())
        answer = json.loads(browser.receive(2 * _SECONDS))
        assert "error" not in answer, answer["error"]
        return answer.get("value")

    return run


def contents(*photos: Path) -> dict[str, str]:
    return {photo.name: b64encode(photo.read_bytes()).decode() for photo in photos}


def shown(predictor: Predictor, photo: Path) -> dict[str, Any]:
    """What the page shows of a photo, by Python's answer."""
    answer = predictor(photo)
    return {
        "file": photo.name,
        "label": "Unknown" if answer.is_unknown else answer.label,
        "bars": [[label, f"{100 * share:.1f} %"] for label, share in answer.top(5)],
    }


def test_photos_that_are_dropped_pasted_or_chosen_get_pythons_answers(
    site: Site, run: Run, photo_folder: Path
) -> None:
    photos = [path for path in sorted(photo_folder.iterdir()) if path.stat().st_size > 100]
    dropped, pasted, chosen = photos[:3], photos[3:4], photos[4:]
    found = run(
        """
        await page.open("good/index.html");
        const { contentDocument: document, contentWindow: window } = page.frame;
        const init = { bubbles: true, cancelable: true, dataTransfer: page.transfer(dropped) };
        const over = new window.DragEvent("dragover", init);
        document.body.dispatchEvent(over);
        const isShown = !page.$("#drop").hidden;
        document.body.dispatchEvent(new window.DragEvent("drop", init));
        const clipboardData = page.transfer(pasted);
        const paste = new window.ClipboardEvent("paste", { bubbles: true });
        Object.defineProperty(paste, "clipboardData", { value: clipboardData });
        document.body.dispatchEvent(paste);
        const input = page.$("#files");
        input.files = page.transfer(chosen).files;
        input.dispatchEvent(new window.Event("change"));
        const answers = await page.answers(count);
        return { answers, accepted: over.defaultPrevented && isShown && page.$("#drop").hidden };
        """,
        dropped=contents(*dropped),
        pasted=contents(*pasted),
        chosen=contents(*chosen),
        count=len(photos),
    )
    predictor = Predictor(site.bundle)
    answers = {answer["file"]: answer for answer in found["answers"]}
    assert list(answers) == [photo.name for photo in reversed(photos)]  # the newest first
    expected = [shown(predictor, photo) for photo in photos]
    for one in expected:
        assert {key: answers[one["file"]][key] for key in one} == one
        assert answers[one["file"]]["picture"] > 0
    assert {one["label"] for one in expected} >= {"Unknown"} < {*LABELS, "Unknown"}
    assert found["accepted"]


def test_a_file_that_is_no_photo_is_named_and_the_next_one_is_classified(
    run: Run, photo_folder: Path
) -> None:
    files = {"notes.jpg": b64encode(b"no photo").decode(), **contents(photo_folder / "0-64x48.jpg")}
    answers = run(
        """
        await page.open("good/index.html");
        const input = page.$("#files");
        input.files = page.transfer(files).files;
        input.dispatchEvent(new page.frame.contentWindow.Event("change"));
        return page.answers(2);
        """,
        files=files,
    )
    assert [answer["file"] for answer in answers] == ["0-64x48.jpg", "notes.jpg"]
    assert answers[1]["label"] == "Not classified" and "not an image" in answers[1]["note"]
    assert answers[0]["label"] != "Not classified"


def test_the_self_test_passes_in_every_precision(run: Run) -> None:
    verdict, failures = run('await page.open("good/index.html"); return page.selftest();')
    assert re.match("Passed: 4 photos", verdict) and not failures
    verdict, failures = run(
        'await page.open("good/index.html?precision=int8"); return page.selftest();'
    )
    assert re.match("Passed: 4 photos", verdict), failures


def test_it_says_what_it_is(site: Site, run: Run) -> None:
    title, labels, about = run(
        """
        await page.open("good/index.html");
        return [page.frame.contentDocument.title, page.text("#labels"), page.text("#about")];
        """
    )
    assert title == "pets" and all(label in labels for label in LABELS)
    manifest = json.loads((site.bundle / "web/manifest.json").read_text())
    ort = json.loads((site.bundle / "web/ort.json").read_text())["version"]
    for part in (
        "fp32",
        manifest["versions"]["edgetl"],
        f"onnxruntime-web {ort}, from this server",
    ):
        assert part in about


def test_the_camera_is_classified_live_and_its_pictures_are_kept(run: Run) -> None:
    live, answers, stopped = run(
        """
        await page.open("good/index.html");
        page.$("#camera").click();
        const live = await page.until(() => page.$("#live-answer .label")?.textContent);
        page.$("#take").click();
        const answers = await page.answers(1);
        page.$("#stop").click();
        await page.until(() => page.$("#live").hidden && page.$("#video").srcObject === null);
        return [live, answers, page.frame.contentDocument.activeElement.id];
        """
    )
    assert live in (*LABELS, "Unknown")
    assert answers[0]["file"] == "Camera" and answers[0]["picture"] > 100
    assert answers[0]["label"] in (*LABELS, "Unknown")
    assert stopped == "camera"  # the keyboard goes on where it was


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_its_place(run: Run, photo_folder: Path, width: int) -> None:
    name = f"{'long' * 30}.jpg"
    content = contents(photo_folder / "0-64x48.jpg")["0-64x48.jpg"]
    assert not run(
        """
        await page.open("good/index.html", width);
        const input = page.$("#files");
        input.files = page.transfer(files).files;
        input.dispatchEvent(new page.frame.contentWindow.Event("change"));
        await page.answers(1);
        return [...page.frame.contentDocument.querySelectorAll("*")]
          .filter((one) => one.clientWidth && one.scrollWidth > one.clientWidth + 1)
          .filter((one) => !one.matches(".visually-hidden, span, a"))
          .map((one) => `${one.tagName}.${one.className}#${one.id}`);
        """,
        width=width,
        files={name: content},
    )


def test_the_second_visit_needs_no_network(site: Site, run: Run, photo_folder: Path) -> None:
    folder = site.copy("offline")
    run(
        """
        await page.open("offline/index.html");
        const workers = page.frame.contentWindow.navigator.serviceWorker;
        await page.until(() => page.frame.contentWindow.navigator.serviceWorker);
        await workers.ready;
        """
    )
    shutil.rmtree(folder)
    found = run(
        """
        const error = await page.open("offline/");
        const input = page.$("#files");
        input.files = page.transfer(files).files;
        input.dispatchEvent(new page.frame.contentWindow.Event("change"));
        return { error, answers: await page.answers(1), test: await page.selftest() };
        """,
        files=contents(photo_folder / "0-64x48.jpg"),
    )
    assert found["error"] is None
    expected = shown(Predictor(site.bundle), photo_folder / "0-64x48.jpg")
    assert {key: found["answers"][0][key] for key in expected} == expected
    assert found["test"][0].startswith("Passed")


def resign(folder: Path) -> None:
    """Give what is in ``folder`` the right checksums, as one would who changes it on purpose."""
    manifest = json.loads((folder / "manifest.json").read_text())
    files = {name: (folder / name).read_bytes() for name in manifest["files"]}
    (folder / "manifest.json").write_bytes(
        manifest_bytes({**manifest, "files": file_entries(files)})
    )


def test_what_was_changed_is_found_where_it_was_changed(site: Site, run: Run) -> None:
    folder = site.copy("damaged-model")
    model = folder / "model.onnx"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    error = run('return page.open("damaged-model/index.html");')
    assert re.search(r"model\.onnx: it is damaged", error)

    folder = site.copy("other-labels")
    text = (folder / "manifest.json").read_text()
    assert LABELS[2] in text
    (folder / "manifest.json").write_text(text.replace(LABELS[2], "木"))
    error = run('return page.open("other-labels/index.html");')
    assert re.search(r"manifest\.json: it was changed after the export", error)

    folder = site.copy("other-codec")
    codec = folder / "codecs/codecs.wasm"
    codec.write_bytes(codec.read_bytes() + b"\0\1x")  # an empty section: a module as good as before
    failed = run('await page.open("other-codec/index.html"); return page.selftest();')
    assert failed[0].startswith("Failed") and "codecs/codecs.wasm: files" in failed[1]

    folder = site.copy("other-weights")
    model = onnx.load(folder / "model.onnx")
    bias = next(one for one in model.graph.initializer if one.name.endswith("head.bias"))
    values = onnx.numpy_helper.to_array(bias) + np.float32([0, 0.1, 0])
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    onnx.save(model, folder / "model.onnx")
    resign(folder)
    failed = run('await page.open("other-weights/index.html"); return page.selftest();')
    assert failed[0].startswith("Failed") and "golden/000.jpg: logits" in failed[1]
    for name in ("damaged-model", "other-labels", "other-codec", "other-weights"):
        shutil.rmtree(site.folder / name)


def test_webgpu_is_refused_for_int8(run: Run) -> None:
    error = run(
        """
        const { Predictor } = await import(new URL("good/edgetl.js", location.href));
        const options = { precision: "int8", provider: "webgpu" };
        return Predictor.load("good/", options).then(() => null, (error) => error.message);
        """
    )
    assert error is not None and "WebGPU" in error and "int8" in error


def test_the_console_is_empty(browser: BrowserPage, run: Run) -> None:
    run('await page.open("good/index.html"); await page.selftest();')
    assert [line for line in browser.console() if "/good/" in line] == []


def test_protection_against_fingerprints_spoils_no_answer(
    site: Site, open_browser: Callable[..., BrowserPage], photo_folder: Path
) -> None:
    """What Firefox then reads from a canvas is noise. Files are decoded without one."""
    photo = photo_folder / "0-64x48.jpg"
    browser = open_browser("firefox", **{"privacy.resistFingerprinting": True})
    found = running(browser)(
        """
        await page.open("good/index.html");
        const input = page.$("#files");
        input.files = page.transfer(files).files;
        input.dispatchEvent(new page.frame.contentWindow.Event("change"));
        const answers = await page.answers(1);
        const verdict = await page.selftest();
        page.$("#camera").click();
        await page.until(() => !page.$("#error").hidden);
        return { answers, verdict, error: page.text("#error") };
        """,
        files=contents(photo),
    )
    expected = shown(Predictor(site.bundle), photo)
    assert {key: found["answers"][0][key] for key in expected} == expected
    assert found["verdict"][0].startswith("Passed")
    assert "against fingerprinting" in found["error"]
