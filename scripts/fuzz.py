"""Coverage-guided fuzzing of what a device reads: photos and bundles.

python scripts/fuzz.py photo --seconds 600        photos, for the decoder and the resize
python scripts/fuzz.py manifest --seconds 600     manifests and metadata, for the bundle reader

Needs atheris (pip install atheris; Linux and macOS). Exit 0: nothing found; otherwise the input is
kept in the folder of --findings. An EdgetlError is the right answer to a bad input; any other error
is a finding, and so are a hang of 20 seconds and 2 GB of memory.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
MAX_PIXELS = 1_000_000  # small pictures: thousands of inputs a second, and the same code
SECONDS_A_TRY, MEGABYTES = 20, 2_000


def fuzz_photo(data: bytes) -> None:
    from edgetl.errors import ImageError
    from edgetl.runtime.images.decode import read_image
    from edgetl.runtime.images.resize import resize_for_graph
    from edgetl.runtime.images.spec import PreprocessSpec

    spec = PreprocessSpec("shorter_side", 16, "bicubic", (12, 12), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    try:
        assert resize_for_graph(read_image(data, max_pixels=MAX_PIXELS), spec).shape == (16, 16, 3)
    except ImageError:
        return


def fuzz_manifest(data: bytes) -> None:
    from edgetl.errors import BundleError
    from edgetl.runtime.bundle.bundle_folder import METADATA_KEY, Bundle, read_card

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "manifest.json").write_bytes(data)
        for attempt in (
            lambda: Bundle.open(folder),
            lambda: read_card(folder, {METADATA_KEY: data.decode("latin-1")}),
        ):
            try:
                attempt()
            except BundleError:
                continue


def photo_seeds() -> list[bytes]:
    from helpers.hostile_photos import oddities, whole_photos

    return [
        *whole_photos().values(),
        *(content for content in oddities().values() if len(content) < 10_000),
    ]


def manifest_seeds() -> list[bytes]:
    from helpers import tiny_bundle

    from edgetl.runtime.bundle.bundle_folder import card_metadata

    with tempfile.TemporaryDirectory() as folder:
        written = tiny_bundle.write(Path(folder) / "bundle")
        metadata = card_metadata(tiny_bundle.card()).encode()
        return [(written / "manifest.json").read_bytes(), metadata]


TARGETS: dict[str, tuple[Callable[[bytes], None], Callable[[], list[bytes]]]] = {
    "photo": (fuzz_photo, photo_seeds),
    "manifest": (fuzz_manifest, manifest_seeds),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60, help="duration")
    start = "folder of files to start from; inputs that reach new code are added"
    parser.add_argument("--corpus", type=Path, help=start)
    kept = "where an input that fails is kept"
    parser.add_argument("--findings", type=Path, default=Path(tempfile.gettempdir()), help=kept)
    arguments = parser.parse_args()
    try:
        import atheris
    except ImportError:
        print("Fuzzing needs atheris, which is not installed: pip install atheris", file=sys.stderr)
        sys.exit(2)
    sys.path.insert(0, str(ROOT / "tests"))
    one_try, seeds = TARGETS[arguments.target]
    with (
        tempfile.TemporaryDirectory() as scratch,
        atheris.instrument_imports(include=["PIL", "edgetl.runtime", "json"]),
    ):
        corpus = arguments.corpus or Path(scratch)
        for number, seed in enumerate(seeds()):
            (corpus / f"seed-{number}").write_bytes(seed)
        one_try(b"")  # imports what it needs, instrumented
        warnings.simplefilter("ignore")
        limits = [f"-timeout={SECONDS_A_TRY}", f"-rss_limit_mb={MEGABYTES}", "-max_len=20000"]
        flags = [f"-max_total_time={arguments.seconds}", "-print_final_stats=1"]
        findings = f"-artifact_prefix={arguments.findings}/"
        atheris.Setup([sys.argv[0], *flags, *limits, findings, str(corpus)], one_try)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
