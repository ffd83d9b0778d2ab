"""TypeScript finds no mistake in the module's annotations."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from helpers.web_folder import MODULE


def test_the_module_is_well_typed(node_modules: Path, tmp_path: Path) -> None:
    options = {
        "checkJs": True,
        "allowJs": True,
        "strict": True,
        "noEmit": True,
        "target": "es2022",
        "module": "esnext",
        "moduleResolution": "bundler",
        "lib": ["es2022", "dom", "dom.iterable"],
        "types": ["node"],
        "typeRoots": [str(node_modules / "@types")],
    }
    project = {"compilerOptions": options, "files": [str(MODULE / "edgetl.js")]}
    (tmp_path / "tsconfig.json").write_text(json.dumps(project))
    command = [node_modules / ".bin/tsc", "--project", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
