"""Reading an ONNX file, and cutting it at its named values in memory; the file never changes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgetl.errors import BundleError, MissingDependencyError
from edgetl.runtime.bundle.bundle_folder import os_errors_as_bundle_error
from edgetl.runtime.bundle.tensor_names import NORMALIZED, RESIZED

if TYPE_CHECKING:
    import onnx


def load_model(path: Path) -> onnx.ModelProto:
    """The model in ``path``.

    Raises BundleError if it is not an ONNX file, MissingDependencyError without onnx.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingDependencyError(
            "onnx", "Comparing an ONNX file stage by stage", "train"
        ) from error
    with os_errors_as_bundle_error(path):
        content = path.read_bytes()
    try:
        return onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's errors depend on its version
        raise BundleError(path, f"it is not an ONNX file ({error})") from error


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of the ONNX file ``path``. Raises what ``load_model`` raises."""
    return {entry.key: entry.value for entry in load_model(path).metadata_props}


def cut_at_preprocessing(path: Path) -> bytes:
    """The part of the model in ``path`` from ``images`` to ``resized`` and ``normalized``.

    Without the network, so that comparing these stages doesn't run it once more.
    Raises BundleError if the graph has no values of these names.
    """
    model = load_model(path)
    from onnx import ValueInfoProto

    from edgetl.onnx_graph.graph_editing import prune

    names = (RESIZED, NORMALIZED)
    computed = {name for node in model.graph.node for name in node.output}
    if missing := [name for name in names if name not in computed]:
        raise BundleError(
            path,
            f"its graph doesn't name the value {missing[0]!r}",
            "Export it again with `edgetl export`.",
        )
    del model.graph.output[:]
    model.graph.output.extend(ValueInfoProto(name=name) for name in names)
    prune(model.graph)
    return bytes(model.SerializeToString())
