"""What a checkpoint says about itself, read without torch and without its tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DESCRIPTION_KEY = "edgetl"
"""Key of a checkpoint's metadata that holds its description as JSON."""


def read_description(path: Path) -> dict[str, Any] | None:
    """The model card, settings and more of the checkpoint ``path``, as JSON values.

    None if there is no such file or it is not a checkpoint. Its checksum is not verified.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            description = json.loads((file.metadata() or {}).get(DESCRIPTION_KEY, "null"))
    except (SafetensorError, OSError, ValueError):
        return None
    is_checkpoint = isinstance(description, dict) and {"card", "settings"} <= description.keys()
    return description if is_checkpoint else None
