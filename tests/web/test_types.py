"""TypeScript finds no mistake in the module's annotations."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from helpers.web_folder import MODULE


def errors_in(folder: Path, node_modules: Path, files: list[Path]) -> str:
    """What TypeScript says of ``files``; ``folder`` gets its project."""
    options = {
        "checkJs": True,
        "allowJs": True,
        "strict": True,
        "noEmit": True,
        "skipLibCheck": True,
        "target": "es2022",
        "module": "esnext",
        "moduleResolution": "bundler",
        "lib": ["es2022", "dom", "dom.iterable"],
        "types": ["node"],
        "typeRoots": [str(node_modules / "@types")],
    }
    project = {"compilerOptions": options, "files": [str(file) for file in files]}
    (folder / "tsconfig.json").write_text(json.dumps(project))
    command = [node_modules / ".bin/tsc", "--project", folder]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout + done.stderr


def test_the_module_is_well_typed(node_modules: Path, tmp_path: Path) -> None:
    names = ("edgetl.js", "predictor.js", "edgetl.d.ts", "page.js", "page-unloaded.js")
    files = [MODULE / name for name in names]
    assert errors_in(tmp_path, node_modules, files) == ""


_PROGRAM = """
import * as ort from "onnxruntime-web";
import { BundleError, EdgetlError, ImageError, Predictor } from "./edgetl.js";

const predictor = await Predictor.load("pets", { ort, precision: "int8", provider: "wasm" });
const prediction = await predictor.predict(new Blob([]));
const best: { label: string; confidence: number } = prediction.top(1)[0];
const score: number | null = prediction.ood_score;
const passed: boolean = (await predictor.selftest({ progress: (done, total) => {} })).passed;
const pixels: Uint8Array = (await predictor.stages(new Uint8Array(8))).decoded.data;
const hint: string | null = new ImageError("photo", "it is damaged").hint;
// @ts-expect-error a path is no photo
await predictor.predict("photo.jpg");
// @ts-expect-error there is no such precision
await Predictor.load("pets", { precision: "int4" });
export { BundleError, EdgetlError, best, hint, passed, pixels, score };
"""


def test_programs_can_use_the_types(node_modules: Path, tmp_path: Path) -> None:
    (tmp_path / "edgetl.d.ts").write_bytes((MODULE / "edgetl.d.ts").read_bytes())
    (tmp_path / "program.mts").write_text(_PROGRAM)
    (tmp_path / "node_modules").symlink_to(node_modules)
    assert errors_in(tmp_path, node_modules, [tmp_path / "program.mts"]) == ""
