"""The C and C++ example gives Python's pixels and answers, and refuses what Python refuses."""

from __future__ import annotations

import ctypes
import json
import math
import os
import platform
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers import tampering, tiny_bundle
from helpers.hostile_photos import bombs, encoded, oddities, png_chunk, whole_photos
from helpers.markdown import code_blocks
from helpers.pictures import photo
from PIL import Image, PngImagePlugin

from edgetl import Predictor
from edgetl.errors import ImageError
from edgetl.runtime.bundle.bundle_folder import MANIFEST, manifest_bytes
from edgetl.runtime.images.decode import read_image

ROOT = Path(__file__).parents[2]
BAD_ARGUMENT, BAD_PHOTO, BAD_MODEL, DIFFERENT = 1, 2, 3, 5

pytestmark = pytest.mark.filterwarnings(r"ignore:::PIL\.")


class CImage(ctypes.Structure):
    _fields_ = (
        ("pixels", ctypes.POINTER(ctypes.c_uint8)),
        ("width", ctypes.c_int32),
        ("height", ctypes.c_int32),
    )


class CError(ctypes.Structure):
    _fields_ = (("code", ctypes.c_int), ("message", ctypes.c_char * 512))


class Library:
    """libedgetl.so, called as any other language would call it."""

    def __init__(self, path: Path) -> None:
        self.c = ctypes.CDLL(str(path))
        self.c.edgetl_unknown_threshold.restype = ctypes.c_double

    def decode(self, content: bytes, max_pixels: int = 0) -> np.ndarray | tuple[int, str]:
        """The pixels, or an error's code and message."""
        image, error = CImage(), CError()
        size, limit = ctypes.c_size_t(len(content)), ctypes.c_uint64(max_pixels)
        code = self.c.edgetl_decode(content, size, limit, ctypes.byref(image), ctypes.byref(error))
        assert code == error.code and bool(image.pixels) == (code == 0) == (not error.message)
        if code:
            return code, error.message.decode()
        pixels = np.ctypeslib.as_array(image.pixels, (image.height, image.width, 3)).copy()
        self.c.edgetl_free_image(ctypes.byref(image))
        return pixels

    def open(self, path: Path) -> tuple[ctypes.c_void_p, str]:
        model, error = ctypes.c_void_p(), CError()
        code = self.c.edgetl_open(
            str(path).encode(), None, 1, ctypes.byref(model), ctypes.byref(error)
        )
        assert code in (0, BAD_MODEL) and bool(model) == (code == 0)
        return model, error.message.decode()


@pytest.fixture(scope="session")
def library(cpp_build: Path) -> Library:
    return Library(cpp_build / "libedgetl.so")


@pytest.fixture
def program(cpp_build: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [cpp_build / "edgetl-predict", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True)

    return run


def in_python(content: bytes) -> np.ndarray | None:
    try:
        return np.asarray(read_image(content))
    except ImageError:
        return None


def is_decoded(content: bytes) -> bool:
    return content.startswith((b"\xff\xd8\xff", b"\x89PNG"))


def png(depth: int, color_type: int, *chunks: bytes) -> bytes:
    """37×50 random samples of any depth and colour type."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color_type]
    rng = np.random.default_rng(depth)
    rows = rng.integers(0, 256, (50, 1 + (37 * channels * depth + 7) // 8), np.uint8)
    rows[:, 0] = 0  # no filter
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 37, 50, depth, color_type, 0, 0, 0))
    data = png_chunk(b"IDAT", zlib.compress(rows.tobytes()))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + data + png_chunk(b"IEND", b"")


def odd_jpegs() -> dict[str, bytes]:
    found = {
        f"{subsampling} {size} {progressive=}": encoded(
            photo(1, *size), "JPEG", subsampling=subsampling, progressive=progressive
        )
        for subsampling in ("4:4:4", "4:2:2", "4:2:0")
        for size in ((64, 48), (63, 47), (1, 1), (3, 100))
        for progressive in (False, True)
    }
    for quality in (1, 50, 100):
        found[f"quality {quality}"] = encoded(photo(quality, 200, 133), "JPEG", quality=quality)
    tall = bytearray(found["4:2:2 (64, 48) progressive=False"])
    tall[tall.index(b"\xff\xc0") + 11] = 0x12  # the same blocks, read as 4:4:0
    found["4:4:0"] = bytes(tall)
    found["gray"] = encoded(photo(1).convert("L"), "JPEG")
    found["RGB"] = encoded(photo(1), "JPEG", keep_rgb=True)
    cmyk = encoded(photo(1).convert("CMYK"), "JPEG", quality=95)
    marker = cmyk.index(b"\xff\xee")
    found["CMYK"], found["CMYK without Adobe"] = cmyk, cmyk[:marker] + cmyk[marker + 16 :]
    ycck = bytearray(cmyk)
    ycck[ycck.index(b"Adobe") + 11] = 2
    found["YCCK"] = bytes(ycck)
    return found


def odd_pngs() -> dict[str, bytes]:
    palette = png_chunk(b"PLTE", np.arange(30, dtype=np.uint8).tobytes())
    found = {}
    for color_type, depths in {0: (1, 2, 4, 8, 16), 2: (8, 16), 4: (8, 16), 6: (8, 16)}.items():
        for depth in depths:
            found[f"type {color_type}, {depth} bits"] = png(depth, color_type)
            for clear in (0, 1, 3, 255, 300, 65535) if color_type in (0, 2) else ():
                value = struct.pack(">H", clear) * (3 if color_type else 1)
                key = f"type {color_type}, {depth} bits, clear {clear}"
                found[key] = png(depth, color_type, png_chunk(b"tRNS", value))
    for depth in (1, 2, 4, 8):  # with indices that the palette does not have
        found[f"palette, {depth} bits"] = png(depth, 3, palette)
        for alphas in (b"\xff\0", b"\x80\x40\0\xff", b"\x7f" * 12):
            key = f"palette, {depth} bits, {alphas!r}"
            found[key] = png(depth, 3, palette, png_chunk(b"tRNS", alphas))
    return found


def turned() -> dict[str, bytes]:
    """EXIF 0 to 9, XMP and ImageMagick's text, before and after the pixels."""
    found, exif = {}, Image.Exif()
    for orientation in range(10):
        exif[0x0112] = orientation
        for kind in ("JPEG", "PNG"):
            found[f"{kind} {orientation}"] = encoded(photo(1), kind, exif=exif)
    exif[0x0112] = 6
    digits = exif.tobytes().hex()
    other = Image.Exif()
    other[0x010E] = "words"
    for xmp in ('<x tiff:Orientation="6"/>', "<tiff:Orientation>8</tiff:Orientation>"):
        found[f"JPEG {xmp}"] = encoded(photo(1), "JPEG", xmp=xmp.encode())
        found[f"JPEG EXIF {xmp}"] = encoded(photo(1), "JPEG", xmp=xmp.encode(), exif=other)
        for compressed in (False, True):
            text = PngImagePlugin.PngInfo()
            text.add_itxt("XML:com.adobe.xmp", xmp, zip=compressed)
            found[f"PNG {xmp} {compressed}"] = encoded(photo(1), "PNG", pnginfo=text)
    for compressed in (False, True):
        text = PngImagePlugin.PngInfo()
        profile = f"\nexif\n{len(digits) // 2:8}\n{digits[:72]}\n{digits[72:]}\n"
        text.add_text("Raw profile type exif", profile, zip=compressed)
        found[f"profile {compressed}"] = encoded(photo(1), "PNG", pnginfo=text)
    plain = encoded(photo(1), "PNG")
    end = plain.rindex(b"IEND") - 4
    found["late"] = plain[:end] + png_chunk(b"eXIf", exif.tobytes()[6:]) + plain[end:]
    return found


@pytest.mark.parametrize("kind", [odd_jpegs, odd_pngs, turned])
def test_the_pixels_are_those_of_python(library, kind):
    for name, content in kind().items():
        expected = in_python(content)
        assert expected is not None, name
        np.testing.assert_array_equal(library.decode(content), expected, err_msg=name)


def test_what_is_no_jpeg_or_png_is_refused_by_name(library):
    named = {"gif": "GIF", "webp": "WebP", "avif": "AVIF", "heic": "HEIC", "tiff": "TIFF"}
    for name, content in whole_photos().items():
        answer = library.decode(content)
        if is_decoded(content):
            np.testing.assert_array_equal(answer, in_python(content), err_msg=name)
        else:
            code, message = answer
            assert code == BAD_PHOTO and named.get(name, "Convert it to JPEG or PNG") in message
    assert "empty" in library.decode(b"")[1]


def test_hostile_photos_give_an_error_or_the_pixels_of_python(library):
    for name, content in {**bombs(), **oddities()}.items():
        answer, expected = library.decode(content), in_python(content)
        if isinstance(answer, tuple):
            assert answer[0] == BAD_PHOTO
            assert expected is None or not is_decoded(content), name
        elif expected is not None:  # texts that Pillow refuses to inflate are never inflated here
            np.testing.assert_array_equal(answer, expected, err_msg=name)
    assert (
        "15000×15000 = 225000000 pixels; the limit is 100000000"
        in library.decode(bombs()["png"])[1]
    )
    assert "the limit is 3071" in library.decode(encoded(photo(1), "PNG"), 3071)[1]


def test_a_truncated_photo_is_refused_or_decoded_whole(library):
    for name, content in whole_photos().items():
        if not is_decoded(content):
            continue
        whole, refused = library.decode(content), 0
        for percent in range(0, 100, 4):
            part = library.decode(content[: len(content) * percent // 100])
            refused += isinstance(part, tuple)
            assert isinstance(part, tuple) or np.array_equal(part, whole), (name, percent)
        assert refused >= 8, name


def test_damaged_photos_do_no_harm(tmp_path):
    """Under the address and undefined behaviour sanitizers; see also ``scripts/fuzz_cpp``."""
    for name, content in whole_photos().items():
        if is_decoded(content):
            (tmp_path / name).write_bytes(content)
    command = [ROOT / "scripts/fuzz_cpp", "2000", *sorted(tmp_path.iterdir())]
    quick_to_build = {**os.environ, "CXXFLAGS": "-O0"}
    done = subprocess.run(command, capture_output=True, text=True, env=quick_to_build)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "decoded" in done.stdout


@pytest.mark.parametrize("spec", [tiny_bundle.CROPPED, tiny_bundle.SQUASHED])
def test_the_answers_are_those_of_python(program, tmp_path, spec, photo_folder):
    bundle = tiny_bundle.write(
        tmp_path / "b", tiny_bundle.card(spec), photos=(photo(1, 40, 30), photo(2, 30, 50))
    )
    done = program("--selftest", bundle)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "passed", done
    assert [line.split()[0] for line in done.stdout.splitlines()[:-1]] == ["ok", "ok"]
    photos = sorted(path for path in photo_folder.iterdir() if path.suffix in (".jpg", ".png"))
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no photo")
    for top in (None, 2):
        done = program("--json", *(["--top", "2"] if top else []), bundle, *photos, broken)
        *answers, error = map(json.loads, done.stdout.splitlines())
        assert done.returncode == 1 and "not an image" in error["error"]
        for path, answer in zip(photos, answers, strict=True):
            expected = Predictor(bundle)(path).to_dict(top)
            assert answer["label"] == expected["label"]
            assert list(answer["probabilities"]) == list(expected["probabilities"])
            for label, probability in expected["probabilities"].items():
                assert math.isclose(answer["probabilities"][label], probability, abs_tol=1e-5)
    lone = program(bundle / "model.onnx", photos[0])
    assert lone.returncode == 0 and lone.stdout == program(bundle, photos[0]).stdout


def rewrite(bundle: Path, change: Callable[[dict], None]) -> None:
    """Change the manifest, and sign it again."""
    manifest = json.loads((bundle / MANIFEST).read_bytes())
    change(manifest)
    (bundle / MANIFEST).write_bytes(manifest_bytes(manifest))


@pytest.mark.parametrize(
    ("stage", "key", "value"),
    [
        ("decode", "decoded_sha256", "0" * 64),
        ("resized", "resized_sha256", "0" * 64),
        ("logits", "logits", [9.0] * 5),
        ("probabilities", "probabilities", [0.2] * 5),
    ],
)
def test_a_tampered_golden_photo_fails_at_its_stage(program, bundle_copy, stage, key, value):
    rewrite(bundle_copy, lambda manifest: manifest["golden"][1].update({key: value}))
    done = program("--selftest", bundle_copy)
    stages = [line.split()[0] for line in done.stdout.splitlines()[:3]]
    assert (done.returncode, stages) == (1, ["ok", stage, "ok"])


def test_a_damaged_file_fails_at_files(program, bundle_copy):
    (bundle_copy / "golden/000.png").write_bytes(encoded(photo(9), "PNG"))
    assert program("--selftest", bundle_copy).stdout.startswith("files          golden/000.png")


def test_a_processor_without_sha_instructions_agrees(cpp_build, tiny_bundle):
    """By the plain SHA-256; the other tests use the instructions where there are some."""
    emulator = shutil.which("qemu-x86_64-static")
    if emulator is None or platform.machine() != "x86_64":
        pytest.skip("needs x86-64 and qemu-user-static, which .ci/run installs")
    command = [emulator, "-cpu", "Nehalem", cpp_build / "edgetl-predict", "--selftest", tiny_bundle]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout.endswith("passed\n")


def test_labels_in_another_order_are_refused(library, bundle_copy):
    rewrite(bundle_copy, lambda manifest: manifest["card"]["labels"].reverse())
    model, message = library.open(bundle_copy)
    assert not model and "the model card in the ONNX file differs" in message


def test_a_model_that_is_damaged_or_foreign_is_refused(library, bundle_copy, tmp_path):
    described = tiny_bundle.card()
    foreign = tmp_path / "foreign.onnx"
    foreign.write_bytes(tiny_bundle.onnx_bytes(described, metadata={"a": "b"}))
    later = tmp_path / "later.onnx"
    metadata = json.dumps({"schema": 3, "requires_edgetl": "9.1", "card": described.to_dict()})
    later.write_bytes(tiny_bundle.onnx_bytes(described, metadata={"edgetl": metadata}))
    fewer = tmp_path / "fewer.onnx"
    card = {**described.to_dict(), "labels": ["a", "b"]}
    metadata = json.dumps({"schema": 1, "card": card})
    fewer.write_bytes(tiny_bundle.onnx_bytes(described, metadata={"edgetl": metadata}))
    (tmp_path / "empty.onnx").touch()
    for path, reason in {
        tmp_path / "none": "there is no such bundle or model",
        tmp_path: "it is missing",
        tmp_path / "empty.onnx": "can't load it",
        foreign: "it was not exported by edgetl",
        later: "its schema is 3; this program reads 1 and 2. It needs the files of edgetl 9.1",
        fewer: "it has 2 labels",
    }.items():
        assert reason in library.open(path)[1]
    manifest = bundle_copy / MANIFEST
    manifest.write_bytes(manifest.read_bytes().replace(b"two words", b"two birds"))
    assert "it was changed after the export" in library.open(bundle_copy)[1]


@pytest.mark.parametrize("damaged", [False, True])
def test_a_flipped_byte_in_a_model_is_noticed(library, bundle_copy, tmp_path, damaged):
    from edgetl.runtime.bundle.embedded_checksum import embed_checksum

    content = bytearray(embed_checksum((bundle_copy / "model.onnx").read_bytes()))
    content[-2000] ^= damaged
    lone = tmp_path / "lone.onnx"
    lone.write_bytes(content)
    model, message = library.open(lone)
    assert bool(model) is not damaged and ("SHA-256" in message) is damaged
    library.c.edgetl_close(model)


def test_a_score_of_the_unknown_is_given_where_the_model_has_one(
    library, program, bundle_copy, tmp_path, photo_folder
):
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load(bundle_copy / "model.onnx")
    model.graph.node.append(
        helper.make_node("ReduceMax", ["logits"], ["ood_score"], axes=[1], keepdims=0)
    )
    model.graph.output.append(helper.make_tensor_value_info("ood_score", TensorProto.FLOAT, ["N"]))
    unknown = {"threshold": -1e6, "keep_known": 0.95, "figures": {}}
    card = {**tiny_bundle.card().to_dict(), "unknown": unknown}
    model.metadata_props[0].value = json.dumps({"schema": 2, "card": card})
    onnx.save(model, tmp_path / "model.onnx")
    picture = next(photo_folder.glob("*.jpg"))
    answer = json.loads(program("--json", tmp_path / "model.onnx", picture).stdout)
    plain = json.loads(program("--json", bundle_copy, picture).stdout)
    expected = Predictor(bundle_copy)(picture).logits.max()
    assert answer["unknown"] is True and math.isclose(answer["ood_score"], expected, rel_tol=1e-4)
    assert "(unknown)" in program(tmp_path / "model.onnx", picture).stdout
    assert "ood_score" not in plain and answer["probabilities"] == plain["probabilities"]
    opened, _ = library.open(tmp_path / "model.onnx")
    assert library.c.edgetl_unknown_threshold(opened) == -1e6
    library.c.edgetl_close(opened)


def test_one_model_serves_several_threads(library, tiny_bundle):
    model, _ = library.open(tiny_bundle)
    pixels = [np.ascontiguousarray(photo(seed, 80, 60)) for seed in range(40)]

    def classify(frame: np.ndarray) -> list[float]:
        image = CImage(frame.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8)), 80, 60)
        logits = (ctypes.c_float * 5)()
        assert not library.c.edgetl_predict(model, ctypes.byref(image), 1, logits, None, None, None)
        return list(logits)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(classify, pixels))
    assert found == [classify(frame) for frame in pixels]
    np.testing.assert_allclose(found[7], Predictor(tiny_bundle)(pixels[7]).logits, atol=1e-4)
    library.c.edgetl_close(model)


def test_where_every_cpu_gives_the_same_bits_the_selftest_allows_no_other(program, bundle_copy):
    golden = json.loads((bundle_copy / "manifest.json").read_bytes())["golden"]
    for entry in golden:
        answer = {name: entry[name] for name in ("logits", "probabilities")}
        entry["own_answers"] = {"fp32": answer | {"logits": [x + 1e-5 for x in entry["logits"]]}}
    for portable, code in ((False, 0), (True, 1)):
        entry = {"fp32": {"portable_bits": portable}}
        tampering.sign(bundle_copy, golden=golden, precisions=entry)
        done = program("--selftest", bundle_copy)
        assert done.returncode == code and ("logits   " in done.stdout) == portable


def test_wrong_arguments_are_errors(library, program, tiny_bundle):
    error = CError()
    assert library.c.edgetl_decode(None, ctypes.c_size_t(3), 0, None, None) == BAD_ARGUMENT
    assert library.c.edgetl_open(None, None, 0, None, ctypes.byref(error)) == BAD_ARGUMENT
    assert library.c.edgetl_predict(None, None, 1, None, None, None, None) == BAD_ARGUMENT
    model, _ = library.open(tiny_bundle)
    image = CImage(None, 3, 3)
    call = library.c.edgetl_predict
    assert call(model, ctypes.byref(image), 1, None, None, None, None) == BAD_ARGUMENT
    assert library.c.edgetl_classes(model) == 5
    assert not library.c.edgetl_label(model, 5)
    library.c.edgetl_close(model)
    library.c.edgetl_close(None)
    for arguments in ((), ("--top", "x", tiny_bundle, "a.jpg"), (tiny_bundle,), ("--no", "a", "b")):
        done = program(*arguments)
        assert done.returncode == 2 and done.stderr.startswith("Usage:")
    done = program("--precision", "int8", tiny_bundle, "a.jpg")
    assert done.returncode == 2 and "it holds no int8 model" in done.stderr
    done = program(tiny_bundle, "none.jpg", tiny_bundle)
    assert done.returncode == 1
    assert "none.jpg: no such file" in done.stdout and "it is not a regular file" in done.stdout


def test_the_program_in_the_guide_compiles():
    (block,) = (b for b in code_blocks(ROOT / "docs/guides/cpp.md") if b.language == "c++")
    command = ["g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-xc++", "-"]
    command.append(f"-I{ROOT / 'examples/cpp'}")
    done = subprocess.run(command, input=block.text, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_header_is_plain_c():
    command = ["g++", "-xc", "-std=c99", "-pedantic-errors", "-Wall", "-Werror", "-fsyntax-only"]
    header = ROOT / "examples/cpp/edgetl.h"
    done = subprocess.run([*command, header], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
