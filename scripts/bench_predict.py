"""What the predictor adds to the bare runtime, as ratios; alternatives are measured in turn.

python scripts/bench_predict.py exported/pets photos/ [--size]    --size: that of edgetl[cpu], too

"Bare" is what a careful programmer would write by hand: Pillow decodes and resizes (one call for
both axes), and the network alone, cut out of the same ONNX file, takes the normalized array. To cut
it, the train extra is needed. Alternatives are run in turn, photo by photo; a photo's figure is the
minimum of its rounds, so that other programs disturb all of them alike.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgetl import Predictor
from edgetl.runtime.images.decode import read_image
from edgetl.runtime.images.resize import resize_image
from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.runtime.inference.benchmark import machine
from edgetl.runtime.inference.session import open_session
from edgetl.system.machine import cores

ROUNDS = 15
FRESH_PROCESSES = 10
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
LARGE = (4000, 3000)  # width, height: 12 megapixels
MEGABYTE = 1e6

BARE_SCRIPT = """
import sys
import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
image = Image.open(sys.argv[2]).convert("RGB")
width, height, left, top, right, bottom, resample = map(int, sys.argv[3:])
pixels = np.asarray(image.resize((width, height), resample).crop((left, top, right, bottom)))
normalized = ((pixels.astype(np.float32) - 127.5) / 127.5).transpose(2, 0, 1)[None]
print(session.run(None, {"normalized": np.ascontiguousarray(normalized)})[1])
"""
OUR_SCRIPT = """
import sys
from edgetl import Predictor

print(Predictor(sys.argv[1])(sys.argv[2]))
"""
PEAK = """
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


@dataclass(frozen=True)
class Row:
    what: str
    ours: float
    other: float
    unit: str
    target: str = ""

    def __str__(self) -> str:
        ratio = self.ours / self.other
        figures = f"{self.ours:>10.3f}{self.other:>10.3f} {self.unit:<4} {ratio:>6.2f}"
        return f"{self.what:<62}{figures}  {self.target}".rstrip()


class Bare:
    """The pipeline by hand."""

    def __init__(self, spec: PreprocessSpec, network: Path, threads: int | None = None) -> None:
        self.spec = spec
        # With our options: the threads of a default session spin after a run, during what is
        # measured next.
        self.session = open_session(network, providers="cpu", threads=threads)

    def decode(self, path: Path) -> Image.Image:
        with Image.open(path) as image:
            return image.convert("RGB")

    def geometry(self, image: Image.Image) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
        """(width, height) of the resize, and the box of the crop."""
        height, width = self.spec.resized_size(image.height, image.width)
        top, left = self.spec.crop_origin(height, width)
        h, w = self.spec.output_size(image.height, image.width)
        return (width, height), (left, top, left + w, top + h)

    def resize(self, image: Image.Image) -> NDArray[np.uint8]:
        size, box = self.geometry(image)
        return np.asarray(image.resize(size, FILTERS[self.spec.interpolation]).crop(box))

    def normalized(self, path: Path) -> NDArray[np.float32]:
        pixels = self.resize(self.decode(path)).astype(np.float32)
        return np.ascontiguousarray(((pixels - 127.5) / 127.5).transpose(2, 0, 1))[np.newaxis]

    def run(self, normalized: NDArray[np.float32]) -> Any:
        return self.session.run(None, {"normalized": normalized})

    def __call__(self, path: Path) -> Any:
        return self.run(self.normalized(path))


def cut(model: Path, inputs: list[str], outputs: list[str], destination: Path) -> Path:
    """The part of ``model`` between named values, as a file."""
    import onnx

    part = onnx.utils.Extractor(onnx.load(model)).extract_model(inputs, outputs)
    onnx.save(part, destination)
    return destination


def in_turn(
    alternatives: dict[str, Callable[[Any], object]], items: Sequence[Any], rounds: int = ROUNDS
) -> dict[str, float]:
    """Milliseconds of each alternative: minimum over the rounds, then mean over the items."""
    best = {name: [float("inf")] * len(items) for name in alternatives}
    for _ in range(rounds):
        for i, item in enumerate(items):
            for name, action in alternatives.items():
                start = time.perf_counter()
                action(item)
                best[name][i] = min(best[name][i], time.perf_counter() - start)
    return {name: 1000 * sum(values) / len(values) for name, values in best.items()}


def one_photo(predictor: Predictor, bare: Bare, photos: Sequence[Path]) -> Iterator[Row]:
    """File → label, one at a time."""
    decoded = {path: bare.decode(path) for path in photos}
    blank = np.zeros((1, 3, *bare.resize(decoded[photos[0]]).shape[:2]), np.float32)
    resized = {path: predictor.resize(read_image(path))[np.newaxis] for path in photos}
    times = in_turn(
        {
            "ours": predictor,
            "bare": bare,
            "our decode": read_image,
            "decode": bare.decode,
            "our resize": lambda path: predictor.resize(decoded[path]),
            "resize": lambda path: bare.resize(decoded[path]),
            "our model": lambda path: predictor.run_model(resized[path]),
            "model": lambda path: bare.run(blank),
        },
        photos,
    )
    parts = times["decode"] + times["resize"] + times["model"]
    what = "file → label against decode + resize + model, each apart"
    yield Row(what, times["ours"], parts, "ms", "≤ 1.10")
    yield Row("file → label against the same by hand", times["ours"], times["bare"], "ms")
    for part in ("decode", "resize", "model"):
        ours = times[f"our {part}"]
        yield Row(f"  of which {part}", ours, times[part], "ms")


def rate(run: Callable[[], Iterable[object]], count: int) -> float:
    start = time.perf_counter()
    for _ in run():
        pass
    return count / (time.perf_counter() - start)


def folder(
    predictor: Predictor, network: Path, photos: Sequence[Path], rounds: int = 5
) -> Iterator[Row]:
    """Many photos on all cores, against decoding alone and the model alone on all cores."""
    many = [photos[i % len(photos)] for i in range(max(200, len(photos)))]
    one_thread, all_threads = (Bare(predictor.card.spec, network, count) for count in (1, None))
    blank = np.zeros((1, 3, *one_thread.resize(one_thread.decode(photos[0])).shape[:2]), np.float32)
    with ThreadPoolExecutor(cores()) as pool:
        runs: dict[str, Callable[[], Iterable[object]]] = {
            "ours": lambda: predictor.batch(many),
            "decode": lambda: pool.map(one_thread.decode, many),
            "decode and resize": lambda: pool.map(
                lambda path: one_thread.resize(one_thread.decode(path)), many
            ),
            "model, one run a core": lambda: pool.map(lambda _: one_thread.run(blank), many),
            "model, one run on all cores": lambda: (all_threads.run(blank) for _ in many),
            "all of it by hand": lambda: pool.map(one_thread, many),
        }
        best = dict.fromkeys(runs, 0.0)
        for _ in range(rounds):
            for name, run in runs.items():
                best[name] = max(best[name], rate(run, len(many)))
    ours = best.pop("ours")
    slower = min(best["decode"], best["model, one run on all cores"])
    yield Row("folder against the slower of decode and bare model", ours, slower, "/s", "≥ 0.95")
    together = 1 / (1 / best["decode and resize"] + 1 / best["model, one run a core"])
    yield Row("folder against both sharing the cores", ours, together, "/s")
    for name, value in best.items():
        yield Row(f"  {name}", ours, value, "/s")


def processes(predictor: Predictor, bare: Bare, network: Path, photo: Path) -> Iterator[Row]:
    """A fresh process that classifies one photo: wall time and peak memory."""
    image = bare.decode(photo)
    size, box = bare.geometry(image)
    geometry = [*size, *box, int(FILTERS[bare.spec.interpolation])]
    commands = {
        "bare": ["-c", BARE_SCRIPT + PEAK, network, photo, *geometry],
        "ours": ["-c", OUR_SCRIPT + PEAK, predictor.path, photo],
        "command": ["-m", "edgetl", "predict", predictor.path, photo],
    }
    seconds, memory = dict.fromkeys(commands, float("inf")), dict.fromkeys(commands, float("inf"))
    # pip compiles what it installs, such as the packages of the bare script; a checkout is
    # compiled at the first start.
    environment = {
        name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
    }
    for _ in range(FRESH_PROCESSES):
        for name, arguments in commands.items():
            start = time.perf_counter()
            command = [sys.executable, *map(str, arguments)]
            done = subprocess.run(
                command, capture_output=True, text=True, check=True, env=environment
            )
            seconds[name] = min(seconds[name], time.perf_counter() - start)
            if name != "command":
                memory[name] = min(memory[name], int(done.stdout.split()[-1]) * 1024 / MEGABYTE)
    yield Row("a process, wall time", seconds["ours"], seconds["bare"], "s", "≤ 1.20")
    yield Row("a process, peak memory", memory["ours"], memory["bare"], "MB", "≤ 1.15")
    yield Row("edgetl predict, wall time", seconds["command"], seconds["bare"], "s", "≤ 0.6 s")


def resize_alone(model: Path) -> bytes:
    import onnx

    from edgetl.onnx_graph.onnx_file import cut_at_preprocessing

    part = onnx.load_model_from_string(cut_at_preprocessing(model))
    kept = [output for output in part.graph.output if output.name == "resized"]
    del part.graph.output[:]
    part.graph.output.extend(kept)
    return bytes(part.SerializeToString())


def graph_resize(predictor: Predictor, model: Path) -> Iterator[Row]:
    """The exact resize inside the graph and in torch, for raw pixels, against Pillow's."""
    import torch

    from edgetl.exporting.formats.torch_preprocess import Preprocess

    session = open_session(resize_alone(model), providers="cpu")
    spec = predictor.card.spec
    bare, module = FILTERS[spec.interpolation], Preprocess(spec)
    for width, height in ((500, 375), LARGE):
        noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        image = Image.fromarray(noise)
        target = spec.resized_size(height, width)[::-1]
        tensor = torch.from_numpy(noise[None])
        (resized,) = session.run(["resized"], {"images": noise[None]})
        for found in (resized, module.resize(tensor).numpy()):
            assert np.array_equal(found[0], resize_image(image, spec))
        times = in_turn(
            {
                "graph": lambda feed: session.run(["resized"], {"images": feed[0]}),
                "torch": lambda feed: module.resize(feed[3]),
                "pillow": lambda feed: feed[1].resize(feed[2], bare),
            },
            [(noise[None], image, target, tensor)],
        )
        what = f"resize in the graph, {height}×{width}, against Pillow"
        yield Row(what, times["graph"], times["pillow"], "ms", "≤ 2")
        yield Row("  of the torch module", times["torch"], times["pillow"], "ms")


def others(predictor: Predictor, network: Path, photos: Sequence[Path]) -> Iterator[Row]:
    """Other ways to the same label, where they are installed."""
    alternatives: dict[str, Callable[[Any], object]] = {"ours": predictor}
    bare = Bare(predictor.card.spec, network)
    if importlib.util.find_spec("torchvision"):
        alternatives["torchvision transforms, then the bare model"] = torchvision_pipeline(bare)
    if importlib.util.find_spec("openvino"):
        alternatives["Pillow, then OpenVINO"] = openvino_pipeline(bare, network)
    if importlib.util.find_spec("ultralytics"):
        alternatives["Ultralytics predictor, its own nano classifier"] = ultralytics_pipeline()
    times = in_turn(alternatives, photos)
    for name in list(alternatives)[1:]:
        yield Row(f"file → label against {name}", times["ours"], times[name], "ms")


def torchvision_pipeline(bare: Bare) -> Callable[[Path], object]:
    from torchvision import transforms

    spec = bare.spec
    size = list(spec.size) if isinstance(spec.size, tuple) else spec.size
    steps = [transforms.Resize(size, transforms.InterpolationMode(spec.interpolation))]
    steps += [transforms.CenterCrop(list(spec.crop))] if spec.crop else []
    pipeline = transforms.Compose(
        [*steps, transforms.ToTensor(), transforms.Normalize(spec.mean, spec.std)]
    )
    return lambda path: bare.run(pipeline(bare.decode(path))[None].numpy())


def openvino_pipeline(bare: Bare, network: Path) -> Callable[[Path], object]:
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.compile_model(network, "CPU", settings)
    return lambda path: compiled(bare.normalized(path))


def ultralytics_pipeline() -> Callable[[Path], object]:
    from ultralytics import YOLO

    model = YOLO("yolo11n-cls.yaml")
    return lambda path: model.predict(path, verbose=False)


def installed_size(scratch: Path) -> Iterator[Row]:
    """Size of site-packages: ``edgetl[cpu]`` against onnxruntime, numpy and Pillow."""
    root = Path(__file__).parent.parent
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    alternatives = {"ours": [f"{root}[cpu]"], "bare": ["onnxruntime", "numpy", "pillow"]}
    sizes = {}
    for name, packages in alternatives.items():
        target = scratch / name
        subprocess.run([*pip, "--target", str(target), *packages], check=True)
        files = (path for path in target.rglob("*") if path.is_file())
        sizes[name] = sum(path.lstat().st_size for path in files) / MEGABYTE
    yield Row("site-packages", sizes["ours"], sizes["bare"], "MB", "≤ + 5 MB")


def rows(arguments: argparse.Namespace, scratch: Path) -> Iterator[Row]:
    predictor = Predictor(arguments.bundle, threads=arguments.threads)
    bundle = predictor.bundle
    model = bundle.path / bundle.model_name() if bundle else predictor.path
    network = cut(model, ["normalized"], ["logits", "probabilities"], scratch / "network.onnx")
    found = sorted(arguments.photos.rglob("*"))
    photos = [path for path in found if path.suffix.lower() in (".jpg", ".jpeg")][:40]
    bare = Bare(predictor.card.spec, network, arguments.threads)
    yield from one_photo(predictor, bare, photos)
    yield from folder(Predictor(arguments.bundle, threads=1), network, photos)
    yield from processes(predictor, bare, network, photos[0])
    yield from graph_resize(predictor, model)
    yield from others(predictor, network, photos)
    if arguments.size:
        yield from installed_size(scratch)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("photos", type=Path, help="a folder of JPEG photos")
    parser.add_argument(
        "--threads", type=int, help="inside one run of the model; default: the cores"
    )
    parser.add_argument(
        "--size", action="store_true", help="also install edgetl[cpu] into a folder and weigh it"
    )
    arguments = parser.parse_args()
    print(json.dumps({**machine(Predictor(arguments.bundle)), "load": os.getloadavg()[0]}))
    print(f"{'':<62}{'ours':>10}{'other':>10}      {'ratio':>6}  target")
    with tempfile.TemporaryDirectory() as scratch:
        for row in rows(arguments, Path(scratch)):
            print(row, flush=True)


if __name__ == "__main__":
    main()
