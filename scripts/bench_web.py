"""Sizes and times of an exported page in browsers, beside the bare onnxruntime-web session.

    edgetl export RUN -o BUNDLE --web --ort DIR
    python scripts/bench_web.py BUNDLE PHOTO [--rounds 40] [--browser chromium]

The first answer counts from the start of the navigation: module, decoders, runtime and model are
fetched from a server on this machine and compiled. Later ones decode, resize and run PHOTO again;
in turn with them, a session of the same model runs on the resized pixels alone. The median of their
ratios counts.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
from pathlib import Path
from typing import Any

from edgetl.parity.browser import PROGRAMS, BrowserPage

MAX_REST = 4.5e6  # bytes of everything but the model, gzipped
MAX_FIRST = 3.0  # seconds
MAX_RATIO = 1.5  # times the bare session's time
SECONDS = 300
PAGE = b"""<!doctype html><title>Benchmark</title><script type="module">
import { Predictor } from "./edgetl.js";

const photo = await (await fetch("photo")).blob();
const predictor = await Predictor.load("./");
const loaded = performance.now();
await predictor.predict(photo);
const first = performance.now();

const manifest = await (await fetch("manifest.json")).json();
const { wasm } = await (await fetch("ort.json")).json();
const ort = await import(new URL(wasm.base + wasm.module, location.href));
const model = await (await fetch(manifest.models[predictor.precision])).arrayBuffer();
const bare = await ort.InferenceSession.create(new Uint8Array(model));
const { resized } = await predictor.stages(photo);
const shape = [1, resized.height, resized.width, 3];
const input = { resized: new ort.Tensor("uint8", resized.data, shape) };
const timed = async (run) => {
  const start = performance.now();
  await run();
  return performance.now() - start;
};
const rounds = [];
for (let i = 0; i < ROUNDS; i++) {
  const whole = await timed(() => predictor.predict(photo));
  rounds.push([whole, await timed(() => bare.run(input, ["logits", "probabilities"]))]);
}
const body = JSON.stringify({ loaded, first, rounds });
await fetch("answer", { method: "POST", body });
</script>"""


def sizes(web: Path) -> None:
    """Print what a visitor fetches: with the photos of the self-test, and without."""
    manifest = json.loads((web / "manifest.json").read_text())
    models = set(manifest["models"].values())
    packed = {
        path.relative_to(web).as_posix(): len(gzip.compress(path.read_bytes(), 9))
        for path in web.rglob("*")
        if path.is_file()
    }
    # What no page asks for: types, the description for npm, licences.
    unused = (".d.ts", "package.json", ".txt", "LICENSE")
    rest = {n: size for n, size in packed.items() if n not in models and not n.endswith(unused)}
    photos = sum(size for name, size in rest.items() if name.startswith("golden/"))
    print(f"gzipped, without the model: {(sum(rest.values()) - photos) / 1e6:.2f} MB", end="")
    print(f" (at most {MAX_REST / 1e6}); the self-test's photos: {photos / 1e6:.2f} MB")
    for name, size in sorted(rest.items(), key=lambda entry: -entry[1])[:4]:
        print(f"  {name}  {size / 1e6:.3f} MB")
    for name in sorted(models):
        print(f"  {name}  {packed[name] / 1e6:.2f} MB")


def measure(browser: str, web: Path, photo: bytes, rounds: int) -> None:
    """Print the times in ``browser``."""
    pages = {"bench.html": PAGE.replace(b"ROUNDS", str(rounds).encode()), "photo": photo}
    with BrowserPage(browser, web, "bench.html", pages=pages) as page:
        found: dict[str, Any] = json.loads(page.receive(SECONDS))
    whole, bare = zip(*found["rounds"], strict=True)
    ratio = statistics.median(a / b for a, b in found["rounds"])
    first, loaded = found["first"] / 1e3, found["loaded"] / 1e3
    print(f"{browser}: first answer {first:.2f} s (at most {MAX_FIRST:g}), loaded {loaded:.2f} s")
    later, session = statistics.median(whole), statistics.median(bare)
    print(f"  later {later:.1f} ms, bare session {session:.1f} ms", end="")
    print(f", ratio {ratio:.2f} (at most {MAX_RATIO})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--browser", choices=PROGRAMS)
    arguments = parser.parse_args()
    web = arguments.bundle / "web"
    sizes(web)
    for browser in [arguments.browser] if arguments.browser else PROGRAMS:
        measure(browser, web, arguments.photo.read_bytes(), arguments.rounds)


if __name__ == "__main__":
    main()
