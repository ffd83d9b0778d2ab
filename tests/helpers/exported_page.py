"""The exported page in a frame, driven by JavaScript that tests send to the page around it."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgetl import Predictor
from edgetl.parity.browser import BrowserPage
from edgetl.runtime.bundle.bundle_folder import file_entries, manifest_bytes

Run = Callable[..., Any]  # JavaScript with ``page`` → its value
_SECONDS = 60  # until something on the page has happened

# Page and frame have the same origin, so that one reaches into the other.
HARNESS = b"""<!doctype html><title>Harness</title><iframe></iframe><script type="module">
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
  // The page of good/ without answers, loaded only if the frame shows another one.
  async show(width = 800) {
    const { pathname, search } = frame.contentWindow.location;
    if (!pathname.endsWith("/good/index.html") || search) {
      return page.open("good/index.html", width);
    }
    frame.style.width = `${width}px`;
    page.$("#clear").click();
    return null;
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
  choose(files) {
    const input = page.$("#files");
    input.files = page.transfer(files).files;
    input.dispatchEvent(new frame.contentWindow.Event("change"));
  },
  async selftest() {
    if (page.$("#selftest").disabled) throw new Error(page.text("#error") || "no self-test");
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
</script>""".replace(b"SECONDS", str(_SECONDS).encode())


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


def resign(folder: Path, *, without: str | None = None) -> None:
    """Give what is in ``folder`` the right checksums, as one would who changes it on purpose.

    without  start of the names of files that are gone
    """
    manifest = json.loads((folder / "manifest.json").read_text())
    names = [name for name in manifest["files"] if not (without and name.startswith(without))]
    files = {name: (folder / name).read_bytes() for name in names}
    (folder / "manifest.json").write_bytes(
        manifest_bytes({**manifest, "files": file_entries(files)})
    )
