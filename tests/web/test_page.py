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
from helpers.exported_page import HARNESS, Run, contents, resign, running, shown
from helpers.other_server import other_server
from helpers.tiny_network import LABELS, scored_card, tapped_network, tiny_detector

from edgetl import Predictor
from edgetl.errors import RuntimeUnavailableError
from edgetl.exporting.bundle_writer import export_bundle
from edgetl.exporting.deployment import Deployment
from edgetl.exporting.precision.reduced_precision import PrecisionSettings
from edgetl.parity.browser import PROGRAMS, BrowserPage, find_browser
from edgetl.runtime.bundle.bundle_folder import manifest_bytes

_CHROMIUM_OPTIONS = (
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--js-flags=--liftoff-only",  # optimising WebAssembly takes longer than what these tests run
)
_FIREFOX_CAMERA = {
    "media.navigator.streams.fake": True,
    "media.navigator.permission.disabled": True,
}


@dataclass(frozen=True)
class Site:
    """A bundle, and a folder with copies of its page, one of them below ``good/``."""

    bundle: Path
    folder: Path

    def copy(self, name: str) -> Path:
        """A fresh copy, also where the test of another browser left one."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        return Path(shutil.copytree(self.bundle / "web", self.folder / name))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, photo_folder: Path, node_modules: Path) -> Site:
    """A model that takes half of the photos for unknown."""
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
            pages={"harness.html": HARNESS},
            options=_CHROMIUM_OPTIONS,
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


def test_photos_that_are_dropped_pasted_or_chosen_get_pythons_answers(
    site: Site, run: Run, photo_folder: Path
) -> None:
    photos = [path for path in sorted(photo_folder.iterdir()) if path.stat().st_size > 100]
    dropped, pasted, chosen = photos[:3], photos[3:4], photos[4:]
    found = run(
        """
        await page.show();
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
        page.choose(chosen);
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
        await page.show();
        page.choose(files);
        return page.answers(2);
        """,
        files=files,
    )
    assert [answer["file"] for answer in answers] == ["0-64x48.jpg", "notes.jpg"]
    assert answers[1]["label"] == "Not classified" and "not an image" in answers[1]["note"]
    assert answers[1]["note"].endswith("Convert it to JPEG, PNG or WebP.")
    assert answers[0]["label"] != "Not classified"


def test_the_self_test_passes_in_every_precision(run: Run) -> None:
    for page in ("good/index.html?precision=int8", "good/index.html"):
        verdict, failures = run("await page.open(url); return page.selftest();", url=page)
        assert re.match("Passed: 4 photos", verdict) and not failures, page


def test_it_says_what_it_is(site: Site, run: Run) -> None:
    title, labels, about = run(
        """
        await page.show();
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
        await page.show();
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
        await page.show(width);
        page.choose(files);
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
        await workers.ready;
        """
    )
    shutil.rmtree(folder)
    found = run(
        """
        const error = await page.open("offline/");
        page.choose(files);
        return { error, answers: await page.answers(1), test: await page.selftest() };
        """,
        files=contents(photo_folder / "0-64x48.jpg"),
    )
    assert found["error"] is None
    expected = shown(Predictor(site.bundle), photo_folder / "0-64x48.jpg")
    assert {key: found["answers"][0][key] for key in expected} == expected
    assert found["test"][0].startswith("Passed")


def test_a_newer_model_is_announced_and_taken_at_the_next_visit(site: Site, run: Run) -> None:
    folder = site.copy("updated")
    run(
        """
        await page.open("updated/index.html");
        await page.frame.contentWindow.navigator.serviceWorker.ready;
        """
    )
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_bytes(manifest_bytes({**manifest, "name": "newer"}))
    worker = folder / "service-worker.js"
    worker.write_text(re.sub('VERSION = "[0-9a-f]+"', 'VERSION = "1"', worker.read_text()))
    names = run(
        """
        await page.open("updated/index.html");
        const before = page.text("#name");
        await page.until(() => /newer version/.test(page.text("#status")));
        await page.open("updated/index.html");
        return [before, page.text("#name")];
        """
    )
    assert names == ["pets", "newer"]


def test_a_newer_model_that_comes_while_the_page_loads_is_announced(run: Run) -> None:
    status = run(
        """
        await page.show();
        await page.frame.contentWindow.navigator.serviceWorker.ready;
        page.frame.addEventListener("load", () => {
          const workers = page.frame.contentWindow.navigator.serviceWorker;
          workers.dispatchEvent(new Event("controllerchange"));
        }, { once: true });
        await page.open("good/index.html");
        return page.text("#status");
        """
    )
    assert status.startswith("There is a newer version")


def test_the_runtime_of_a_cdn_is_verified_and_kept(
    site: Site, run: Run, tmp_path: Path, photo_folder: Path
) -> None:
    """Another server stands for the CDN; the page's own policy has to allow all that it does."""
    cdn = shutil.copytree(site.bundle / "web/ort", tmp_path / "cdn")
    folder = site.copy("cdn")
    with other_server(cdn) as address:
        changes = {
            "ort.json": ('"ort/"', f'"{address}"'),
            "index.html": ("https://cdn.jsdelivr.net", address.rstrip("/")),
        }
        for name, (old, new) in changes.items():
            text = (folder / name).read_text()
            assert old in text
            (folder / name).write_text(text.replace(old, new))
        shutil.rmtree(folder / "ort")
        resign(folder, without="ort/")
        binary = cdn / "ort-wasm-simd-threaded.wasm"
        content = binary.read_bytes()
        binary.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        error = run('return page.open("cdn/index.html");')
        assert "onnxruntime-web can't be read from" in error
        binary.write_bytes(content)
        about = run(
            """
            const error = await page.open("cdn/index.html");
            if (error) throw new Error(error);
            await page.frame.contentWindow.navigator.serviceWorker.ready;
            return page.text("#about");
            """
        )
    assert "only if its checksum is the pinned one" in about
    shutil.rmtree(folder)
    photo = photo_folder / "0-64x48.jpg"
    found = run(
        """
        const error = await page.open("cdn/");
        if (error) throw new Error(error);
        page.choose(files);
        return page.answers(1);
        """,
        files=contents(photo),
    )
    expected = shown(Predictor(site.bundle), photo)
    assert {key: found[0][key] for key in expected} == expected


def test_what_was_changed_is_found_where_it_was_changed(site: Site, run: Run) -> None:
    folder = site.copy("damaged-model")
    model = folder / "model.onnx"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    error = run('return page.open("damaged-model/index.html");')
    assert re.search(r"model\.onnx: it is damaged", error)

    folder = site.copy("no-script")
    (folder / "page-camera.js").unlink()
    error = run('return page.open("no-script/index.html");')
    assert re.search(r"page\.js, or a script that it needs, can't be read", error)

    folder = site.copy("other-labels")
    text = (folder / "manifest.json").read_text()
    assert LABELS[2] in text
    (folder / "manifest.json").write_text(text.replace(LABELS[2], "木"))
    error = run('return page.open("other-labels/index.html");')
    assert re.search(r"manifest\.json: it was changed after the export", error)

    folder = site.copy("other-codec")
    codec = folder / "codecs/codecs.wasm"
    codec.write_bytes(codec.read_bytes() + b"\0\1x")  # an empty section: a module as good as before
    error = run('return page.open("other-codec/index.html");')
    assert re.search(r"codecs\.wasm: it is damaged", error)

    folder = site.copy("other-weights")
    model = onnx.load(folder / "model.onnx")
    bias = next(one for one in model.graph.initializer if one.name.endswith("head.bias"))
    values = onnx.numpy_helper.to_array(bias) + np.float32([0, 0.1, 0])
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    onnx.save(model, folder / "model.onnx")
    resign(folder)
    failed = run('await page.open("other-weights/index.html"); return page.selftest();')
    assert failed[0].startswith("Failed") and "golden/000.jpg: logits" in failed[1]


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
        page.choose(files);
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
