"""Pages in a headless browser: what they post comes back, and nothing of the browser stays."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from edgetl.errors import RuntimeUnavailableError
from edgetl.parity import browser
from edgetl.parity.browser import PROGRAMS, BrowserPage, find_browser

_ECHO = b"""<!doctype html><title>Echo</title><script type="module">
import { shout } from "./shout.mjs";
console.warn("echo is ready");
for (;;) {
  const job = await fetch("job");
  if (job.status === 204) continue;
  const body = shout(await job.text());
  if (body.startsWith("FAIL")) setTimeout(() => { throw new Error("on purpose"); });
  await fetch("answer", { method: "POST", body });
}
</script>"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    (folder / "shout.mjs").write_text("export const shout = (text) => text.toUpperCase();")
    (folder.parent / "secret.txt").write_text("not of the site")
    return folder


@pytest.fixture(scope="module", params=list(PROGRAMS))
def echo(request: pytest.FixtureRequest, folder: Path) -> Iterator[BrowserPage]:
    try:
        find_browser(request.param)
    except RuntimeUnavailableError:
        pytest.skip(f"no {request.param} here; .ci/run installs one")
    with BrowserPage(request.param, folder, "echo.html", pages={"echo.html": _ECHO}) as page:
        yield page


def test_jobs_are_answered_in_order(echo: BrowserPage) -> None:
    echo.send(b"one")
    assert echo.receive(60) == b"ONE"
    large = b"x" * 3_000_000
    echo.send(large)
    assert echo.receive(60) == large.upper()


def test_the_console_is_shown(echo: BrowserPage) -> None:
    echo.send(b"fail")
    assert echo.receive(60) == b"FAIL"
    with pytest.raises(RuntimeError, match=r"did not answer within 1.5 seconds.*on purpose"):
        echo.receive(1.5)
    assert re.search("echo is ready.*on purpose", " ".join(echo.console()), re.S)


def test_only_the_page_is_served_and_only_its_folder(echo: BrowserPage) -> None:
    with urllib.request.urlopen(echo.address + "shout.mjs", timeout=10) as answer:
        assert answer.headers["content-type"] == "text/javascript"
    root, _, _ = echo.address.rstrip("/").rpartition("/")
    for address in (f"{root}/shout.mjs", f"{echo.address}../secret.txt", f"{echo.address}none"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(address, timeout=10)
    with pytest.raises(urllib.error.HTTPError, match="403"):  # not from the page
        urllib.request.urlopen(echo.address + "answer", data=b"forged", timeout=10)


@pytest.mark.parametrize("kind", list(PROGRAMS))
def test_nothing_stays_behind(kind: str, folder: Path) -> None:
    try:
        find_browser(kind)
    except RuntimeUnavailableError:
        pytest.skip(f"no {kind} here; .ci/run installs one")
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    page = BrowserPage(kind, folder, "missing.html")
    with pytest.raises(RuntimeError, match="did not answer within 2 seconds"):
        page.receive(2)
    started = psutil.Process().children(recursive=True)
    started = [child for child in started if child.pid not in before]
    assert len(started) > 1  # the browser's own processes
    page.close()
    _, alive = psutil.wait_procs(started, timeout=10)
    assert not alive and not Path(page._profile.name).exists()


def test_a_browser_that_ends_is_noticed(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path
) -> None:
    program = tmp_path / "chromium"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setitem(browser.PROGRAMS, "chromium", (str(program),))
    with (
        BrowserPage("chromium", folder, "missing.html") as page,
        pytest.raises(RuntimeError, match="the browser ended"),
    ):
        page.receive(30)


def test_it_does_not_outlive_a_process_that_is_killed(folder: Path, tmp_path: Path) -> None:
    program = tmp_path / "chromium"
    program.write_text(
        f"#!/bin/sh\necho $$ > {tmp_path}/pid.new\n"
        f"mv {tmp_path}/pid.new {tmp_path}/pid\nsleep 600\n"
    )
    program.chmod(0o755)
    code = (
        "import os, pathlib, sys, time; from edgetl.parity import browser; "
        f"browser.PROGRAMS['chromium'] = ({str(program)!r},); "
        f"page = browser.BrowserPage('chromium', pathlib.Path({str(folder)!r}), ''); "
        f"[time.sleep(0.05) for _ in iter(pathlib.Path({str(tmp_path / 'pid')!r}).exists, True)]; "
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code], timeout=60)
    browser_pid = int((tmp_path / "pid").read_text())
    with suppress(psutil.NoSuchProcess):
        psutil.Process(browser_pid).wait(10)


def test_a_missing_browser_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "PATH", "/nowhere")
    with pytest.raises(RuntimeUnavailableError, match="apt-get install firefox-esr"):
        find_browser("firefox")
