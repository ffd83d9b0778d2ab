"""Small photos and data sets, made by the tests; no other file is needed."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
from helpers.no_figures import leave_out_figures
from helpers.pictures import COLOURS, photo, write_photo
from PIL import Image

from edgetl.data.image_folder import Sample, scan
from edgetl.runtime.inference import benchmark

WritePhotos = Callable[..., Path]
NOBODY = 65534

# Before torch is imported: the test processes share the cores, and collect garbage as rarely as the
# program does.
gc.set_threshold(10_000)
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The programs that tests start find edgetl compiled, as they do where it is installed.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# No test cuts the power. Those of what is written before what put functions of their own here.
os.fsync = lambda _: None
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Put the tests that fork commands side by side: one test process then runs them all.

    Each that runs some starts a process to fork from, which imports torch again.
    """
    items.sort(key=lambda item: "Forked" not in vars(item.module))


def pytest_collection_finish() -> None:
    """Leave what was imported, and the tests themselves, out of every collection of garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def figures() -> Iterator[None]:
    """Leave the figures out of reports, also of those that fixtures write.

    The tests of the report override this. A run that is started as a user starts it, in a process
    of its own, draws them.
    """
    with pytest.MonkeyPatch.context() as patch:
        leave_out_figures(patch.setattr)
        yield


@pytest.fixture(scope="session", autouse=True)
def one_fresh_start() -> Iterator[None]:
    """Let benchmarks start one fresh process only: none of the tests looks at its time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, "FRESH_STARTS", 1)
        yield


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight photos of several shapes and formats, no classes."""
    folder = tmp_path_factory.mktemp("photos")
    for seed, (width, height, suffix) in enumerate(
        [
            (64, 48, "jpg"),
            (48, 64, "png"),
            (33, 33, "jpg"),
            (200, 50, "jpg"),
            (31, 170, "png"),
            (224, 224, "jpg"),
            (5, 3, "png"),
            (300, 256, "webp"),
        ]
    ):
        photo(seed, width, height).save(folder / f"{seed}-{width}x{height}.{suffix}")
    return folder


@pytest.fixture(scope="session")
def cpp_build(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The folder with the C++ library and program, one for all workers."""
    from helpers.cpp_build import build_cpp

    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "cpp"
    build_cpp(folder)
    return folder


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The folder that scripts/web_environment makes, with onnxruntime-web and TypeScript."""
    folder = os.environ.get("EDGETL_NODE_MODULES")
    if folder is None:
        pytest.skip("EDGETL_NODE_MODULES is not set: see scripts/web_environment; .ci/run sets it")
    return Path(folder)


@pytest.fixture(scope="session")
def class_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three easy classes in train/ and val/, 12 and 5 photos each: one hue a class."""
    folder = tmp_path_factory.mktemp("data")
    for split, count in (("train", 12), ("val", 5)):
        for channel, label in enumerate(("blue fish", "green, leaf", "red 花")):
            (folder / split / label).mkdir(parents=True)
            for i in range(count):
                pixels = np.asarray(photo(1000 * channel + 100 * len(split) + i, 40 + i, 36)).copy()
                pixels[:, :, 2 - channel] = 255 - pixels[:, :, 2 - channel] // 4
                Image.fromarray(pixels).save(folder / split / label / f"{i}.jpg")
    return folder


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of one matrix with odd labels and three golden photos; see tiny_bundle.py.

    Copy it to change it.
    """
    from helpers import tiny_bundle

    photos = (photo(1, 40, 30), photo(2, 30, 50), photo(3, 12, 12))
    return tiny_bundle.write(tmp_path_factory.mktemp("bundle") / "tiny", photos=photos)


@pytest.fixture
def bundle_copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the tiny bundle that a test may break."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "copy"))


@pytest.fixture
def write_photos() -> WritePhotos:
    """A function that writes photos, given their number by class, as ``folder/<class>/<n>.png``."""

    def write(
        folder: Path, counts: dict[str, int], *, first: int = 0, suffix: str = ".png"
    ) -> Path:
        for name, count in counts.items():
            colour = COLOURS.get(name, (120, 120, 120))
            for number in range(first, first + count):
                seed = number + 1000 * (list(COLOURS).index(name) if name in COLOURS else 9)
                write_photo(folder / name / f"{number:03}{suffix}", colour, seed)
        return folder

    return write


@pytest.fixture
def two_parts(tmp_path: Path, write_photos: WritePhotos) -> Path:
    """DATA/train with 8 + 8 photos and DATA/val with 5 + 4, classes ash and brick."""
    write_photos(tmp_path / "data/train", {"ash": 8, "brick": 8})
    write_photos(tmp_path / "data/val", {"ash": 5, "brick": 4}, first=100)
    return tmp_path / "data"


@pytest.fixture
def samples(class_folder: Path) -> tuple[Sample, ...]:
    """The training photos of ``class_folder``."""
    return scan(class_folder).train


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that every user may enter; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def without_privileges() -> Callable[[], AbstractContextManager[None]]:
    """A context in which permissions count, also where the tests run as root."""

    @contextmanager
    def dropped() -> Iterator[None]:
        if os.geteuid() != 0:
            yield
            return
        os.seteuid(NOBODY)
        try:
            yield
        finally:
            os.seteuid(0)

    return dropped
