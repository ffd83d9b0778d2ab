"""What can be told of a bundle without running it: its files are whole, and it describes the network that was trained."""

from __future__ import annotations

from edgetl.errors import BundleError
from edgetl.parity.results import Finding
from edgetl.parity.runtimes import Subject
from edgetl.parity.runtimes.base import lone_card
from edgetl.runtime.bundle.bundle_folder import MANIFEST, open_to_read
from edgetl.runtime.bundle.embedded_checksum import verify_checksum
from edgetl.runtime.bundle.model_card import ModelCard


def check_bundle_files(subject: Subject) -> tuple[Finding, ...]:
    """Findings "files", "labels", "spec" and "temperature"; each of the last three looks at every description there is."""
    described = {MANIFEST if subject.bundle else str(subject.path.name): subject.card}
    damage, whole = _files(subject)
    problems = [f"{error.path.name}: {error.reason}" for error in damage]
    if subject.bundle and subject.model:
        try:
            described[subject.model.name] = lone_card(subject.model)
        except BundleError as error:
            problems.append(f"{error.path.name}: {error.reason}")
    return (
        Finding("files", not problems, "; ".join(problems) or whole),
        _finding("labels", described, subject.reference),
        _finding("spec", described, subject.reference),
        _finding("temperature", described, subject.reference),
    )


def _files(subject: Subject) -> tuple[list[BundleError], str]:
    """(what is damaged, what to say if nothing is)."""
    if subject.bundle:
        return (
            subject.bundle.damage(),
            f"{len(subject.bundle.manifest['files'])} files are as exported",
        )
    try:
        with open_to_read(subject.path) as file:
            sealed = verify_checksum(subject.path, file.read())
    except BundleError as error:
        return [error], ""
    return [], "a lone file, as exported" if sealed else "a lone file without a checksum"


def _finding(name: str, described: dict[str, ModelCard], reference: ModelCard) -> Finding:
    """Whether ``name`` of each description (file → card) is the reference's."""
    compare = {"labels": _labels, "spec": _spec, "temperature": _temperature}[name]
    problems = [
        f"{file}: {problem}"
        for file, card in described.items()
        if (problem := compare(card, reference))
    ]
    return Finding(
        name,
        not problems,
        "; ".join(problems) or f"as in the checkpoint, in {' and '.join(described)}",
    )


def _labels(card: ModelCard, reference: ModelCard) -> str | None:
    if len(card.labels) != len(reference.labels):
        return f"{len(card.labels)} labels, the checkpoint has {len(reference.labels)}"
    wrong = [
        i
        for i, pair in enumerate(zip(card.labels, reference.labels, strict=True))
        if pair[0] != pair[1]
    ]
    if not wrong:
        return None
    first = wrong[0]
    return f"label {first} is {card.labels[first]!r}, in the checkpoint {reference.labels[first]!r} ({len(wrong)} differ)"


def _spec(card: ModelCard, reference: ModelCard) -> str | None:
    ours, theirs = card.spec.to_dict(), reference.spec.to_dict()
    return (
        ", ".join(
            f"{key} {ours[key]}, in the checkpoint {theirs[key]}"
            for key in ours
            if ours[key] != theirs[key]
        )
        or None
    )


def _temperature(card: ModelCard, reference: ModelCard) -> str | None:
    if card.temperature == reference.temperature:
        return None
    return f"temperature {card.temperature}, in the checkpoint {reference.temperature}"
