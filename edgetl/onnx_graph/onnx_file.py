"""Reading an ONNX file and cutting it, in memory, at its named values. The file itself is never changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgetl.errors import BundleError, MissingDependencyError
from edgetl.runtime.bundle.tensor_names import NORMALIZED, RESIZED

# Values that the exporter names inside the graph, with their element type and shape.
PREPROCESSED: dict[str, tuple[str, list[str | int | None]]] = {
    RESIZED: ("UINT8", ["N", "h", "w", 3]),
    NORMALIZED: ("FLOAT", ["N", 3, "h", "w"]),
}


def load(path: Path) -> Any:
    """The ``onnx.ModelProto`` in ``path``. Raises BundleError if it is none, MissingDependencyError without onnx."""
    try:
        import onnx
    except ImportError as error:
        raise MissingDependencyError(
            "onnx", "Comparing an ONNX file stage by stage", "train"
        ) from error
    try:
        return onnx.load_model_from_string(path.read_bytes())
    except OSError as error:
        raise BundleError(path, f"it can't be read ({error.strerror})") from error
    except Exception as error:  # protobuf's errors depend on its version
        raise BundleError(path, f"it is not an ONNX file ({error})") from error


def metadata(path: Path) -> dict[str, str]:
    """The metadata of the ONNX file in ``path``. Raises what ``load`` raises."""
    return {entry.key: entry.value for entry in load(path).metadata_props}


def cut_at_preprocessing(path: Path) -> bytes:
    """The part of the model in ``path`` that makes ``resized`` and ``normalized`` out of ``images``, as a model.

    The network behind is left out, so that showing these stages doesn't cost another run of it.
    Raises BundleError if the graph doesn't name those values.
    """
    import onnx

    from edgetl.onnx_graph.pruning import needed

    model = load(path)
    graph = model.graph
    nodes, used = needed(graph.node, PREPROCESSED)
    made = {name for node in nodes for name in node.output}
    missing = [name for name in PREPROCESSED if name not in made]
    if missing:
        raise BundleError(
            path,
            f"its graph doesn't name the value {missing[0]!r}",
            "Export it again with `edgetl export`.",
        )
    initializers = [tensor for tensor in graph.initializer if tensor.name in used]
    for field, values in (("node", nodes), ("initializer", initializers)):
        del getattr(graph, field)[:]
        getattr(graph, field).extend(values)
    del graph.output[:]
    for name, (element, shape) in PREPROCESSED.items():
        kind = getattr(onnx.TensorProto, element)
        graph.output.append(onnx.helper.make_tensor_value_info(name, kind, shape))
    content: bytes = model.SerializeToString()
    return content
