"""The checkpoint, ``best.safetensors``: tensors, and all it takes to rebuild the network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from edgetl.data.layout import content_digest
from edgetl.errors import CheckpointError, EdgetlError, first_line
from edgetl.runtime.bundle.held_out import HeldOut
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.system.shell import shell_word
from edgetl.training.config.checkpoint_description import DESCRIPTION_KEY
from edgetl.training.config.run_files import write_atomically
from edgetl.training.config.run_folder import checkpoint_file
from edgetl.training.models.backbone import Backbone, Level
from edgetl.training.models.backbones import build
from edgetl.training.models.multi_level import with_levels
from edgetl.training.models.ood_detector import OODDetector
from edgetl.training.models.pretrained_weights import BESIDE, load_state
from edgetl.training.models.tensor_hash import hash_tensors
from edgetl.training.models.torchscript_program import PROGRAM, program_bytes, read_program

_CHECKSUM = "sha256"  # of the description without it, and of the tensors
_SCHEMA = 1  # the weights of a backbone that its name rebuilds
_T = TypeVar("_T", HeldOut, OODDetector)
_PROGRAM_SCHEMA = 2  # one tensor, PROGRAM: a whole network as TorchScript


@dataclass(frozen=True)
class Trained:
    """A trained classifier: ``network`` in eval mode on the CPU, and all it takes to rebuild it.

    network   the backbone that the card names, or any network as a ``torch.jit.ScriptModule``
    settings  what it was trained with (JSON)
    levels    earlier layers that its head uses; see ``edgetl.training.models.multi_level``
    photos    the photos that it was trained on, as ``photo_digests.pack`` writes them; "": unknown
    sha256    of the file that it was read from (hex), or ""
    head      attribute path of the classifier layer; "" for a program
    ood       tells photos unlike the training photos by the classifier layer's input; None where
              that can't be done
    held_out  answers for photos that fitted nothing; None: of an earlier version, or an imported
              network
    backbone  what ``network`` is, where that is known without building it again
    """

    network: nn.Module
    card: ModelCard
    settings: Mapping[str, Any] = field(default_factory=dict)
    levels: tuple[Level, ...] = ()
    photos: str = ""
    sha256: str = ""
    head: str = ""
    ood: OODDetector | None = None
    held_out: HeldOut | None = None
    backbone: Backbone | None = None

    def as_backbone(self) -> Backbone:
        """``network`` as the backbone that the card names."""
        backbone = self.backbone or _rebuild(self.card, self.levels)
        return replace(backbone, module=self.network, spec=self.card.spec)


def _rebuild(card: ModelCard, levels: tuple[Level, ...]) -> Backbone:
    return with_levels(build(card.backbone, len(card.labels), weights="none"), levels)


def save(trained: Trained, path: Path) -> None:
    """Write one safetensors file, atomically. Raises CheckpointError; an old file then stays."""
    network = trained.network
    description = {
        "schema": _PROGRAM_SCHEMA if isinstance(network, torch.jit.ScriptModule) else _SCHEMA,
        "card": trained.card.to_dict(),
        "settings": dict(trained.settings),
        "levels": trained.levels,
        **({"photos": trained.photos} if trained.photos else {}),
    }
    if isinstance(network, torch.jit.ScriptModule):
        tensors = {PROGRAM: program_bytes(network)}
    else:  # clones: safetensors refuses tensors that share memory, which tied weights do
        tensors = {
            name: tensor.detach().cpu().contiguous().clone()
            for name, tensor in network.state_dict().items()
        }
    tensors |= _beside("held_out", trained.held_out) | _beside("ood", trained.ood)
    checksum = hash_tensors(tensors, _as_json(description))
    # One entry: the format does not keep the order of several, and the same network should give
    # the same bytes.
    text = _as_json({**description, _CHECKSUM: checksum})
    content = to_bytes(tensors, {DESCRIPTION_KEY: text})
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def load(source: str | Path) -> Trained:
    """Read a run folder's best checkpoint, or one ``.safetensors`` file. Downloads nothing.

    Raises CheckpointError if it is missing, damaged, or not a checkpoint of this version.
    """
    path = checkpoint_file(source)
    tensors, description, sha256 = _read(path)
    try:
        card = ModelCard.from_dict(description["card"])
        levels = tuple(
            (str(path), int(channels)) for path, channels in description.get("levels", ())
        )
        head, backbone = "", None
        if description["schema"] == _PROGRAM_SCHEMA:
            network: nn.Module = read_program(tensors[PROGRAM])
        else:
            backbone = _rebuild(card, levels)
            network, head = backbone.module, backbone.head
            load_state(network, {key: tensors[key] for key in tensors if BESIDE not in key})
        held_out = _from_beside("held_out", HeldOut, tensors)
        ood = _from_beside("ood", OODDetector, tensors)
    except (EdgetlError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} can't be rebuilt: {first_line(error)}",
            "Was it written by another version of edgetl?",
        ) from error
    settings, photos = description.get("settings", {}), str(description.get("photos", ""))
    return Trained(
        network.eval(), card, settings, levels, photos, sha256, head, ood, held_out, backbone
    )


def _beside(name: str, value: HeldOut | OODDetector | None) -> dict[str, Tensor]:
    """The arrays and numbers of ``value`` as tensors that are none of the network's."""
    return {
        f"{name}{BESIDE}{entry.name}": torch.from_numpy(np.array(getattr(value, entry.name)))
        for entry in (fields(value) if value is not None else ())
    }


def _from_beside(name: str, kind: type[_T], tensors: Mapping[str, Tensor]) -> _T | None:
    """What ``_beside`` made tensors of, or None. Raises KeyError if one is missing."""
    if not any(key.startswith(f"{name}{BESIDE}") for key in tensors):
        return None
    found = {entry.name: tensors[f"{name}{BESIDE}{entry.name}"] for entry in fields(kind)}
    values: dict[str, Any] = {
        key: value.numpy() if value.ndim else value.item() for key, value in found.items()
    }
    return kind(**values)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """(tensors, description, SHA-256 of the file)."""
    try:
        sha256 = content_digest(path)
        with safe_open(path, framework="pt") as file:
            description = json.loads((file.metadata() or {}).get(DESCRIPTION_KEY, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        if content_digest(path) != sha256:  # a run has just replaced it with a better one
            raise CheckpointError(f"{path} changed while it was read.", "Try again.")
    except (SafetensorError, OSError, ValueError) as error:
        hint = "Is the file damaged? Train again, or use a copy."
        if path.suffix != ".safetensors":
            hint = f"A network that was trained elsewhere: edgetl import {shell_word(path)}"
        raise CheckpointError(f"{path} can't be read: {error}.", hint) from error
    if not isinstance(description, dict) or description.get("schema") not in (
        _SCHEMA,
        _PROGRAM_SCHEMA,
    ):
        raise CheckpointError(
            f"{path} is not a checkpoint of edgetl, or one of a later version.",
            f"Name a run's folder; what was trained elsewhere: edgetl import {shell_word(path)}",
        )
    if description.pop(_CHECKSUM, None) != hash_tensors(tensors, _as_json(description)):
        raise CheckpointError(
            f"{path} is damaged: its checksum does not match.", "Train again, or use a copy."
        )
    return tensors, description, sha256


def _as_json(description: Mapping[str, Any]) -> str:
    return json.dumps(description, ensure_ascii=False, sort_keys=True)
