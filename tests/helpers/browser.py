"""A page in a headless Chromium."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
_FRAME = """<!doctype html><iframe src="{page}" style="width:{width}px;height:900px;border:0">
</iframe><pre></pre><script>
const frame = document.querySelector("iframe");
frame.onload = () => {{
  const found = [...frame.contentDocument.querySelectorAll("*")].filter(
    (one) => one.clientWidth && one.scrollWidth > one.clientWidth + 1
             && !one.closest("svg") && getComputedStyle(one).display !== "inline");
  document.querySelector("pre").textContent = JSON.stringify(
    found.map((one) => `${{one.tagName.toLowerCase()}}.${{one.className}}`));
}};
</script>"""


def in_chromium(page: Path | str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Chromium's output for ``page``, a file or an address; ``folder``: for its profile.

    Skips the test without one.
    """
    if CHROMIUM is None:
        pytest.skip("no Chromium here; .ci/run installs one")
    command = [
        CHROMIUM,
        *["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"],
        *["--disable-background-networking", "--enable-logging=stderr", "--v=0"],
        f"--user-data-dir={folder / 'profile'}",
        *options,
        page if isinstance(page, str) else page.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def wider_than_their_place(page: Path, folder: Path, width: int) -> list[str]:
    """The elements of ``page`` that scroll sideways, or are cut, in a window of ``width`` pixels.

    A frame stands for the window, since Chromium's own is never narrower than 500 pixels.
    """
    frame = folder / "frame.html"
    frame.write_text(_FRAME.format(page=page.as_uri(), width=width))
    options = ("--allow-file-access-from-files", "--window-size=800,1000", "--dump-dom")
    done = in_chromium(frame, folder, *options)
    found = re.search(r"<pre>(\[.*?\])</pre>", done.stdout)
    assert found, done.stderr
    elements: list[str] = json.loads(unescape(found[1]))
    return elements
