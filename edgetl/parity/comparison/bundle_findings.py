"""What can be checked without running a bundle: its files are intact, and describe the network."""

from __future__ import annotations

from edgetl.errors import BundleError
from edgetl.parity.results import Finding
from edgetl.parity.runtimes import Subject
from edgetl.parity.runtimes.base import lone_card
from edgetl.runtime.bundle.bundle_folder import MANIFEST, open_to_read
from edgetl.runtime.bundle.embedded_checksum import verify_checksum
from edgetl.runtime.bundle.model_card import ModelCard


def check_bundle_files(subject: Subject) -> tuple[Finding, ...]:
    """Findings "files", "labels", "spec", "temperature" and, of models that have it, more.

    That is "unknown" of models with a score, and "biases" of those with maps.
    All but the first look at every model card there is: the manifest's and the ONNX file's.
    """
    cards = {MANIFEST if subject.bundle else subject.path.name: subject.card}
    damage, intact = _file_damage(subject)
    problems = [f"{error.path.name}: {error.reason}" for error in damage]
    if subject.bundle and subject.model:
        try:
            cards[subject.model.name] = lone_card(subject.model)
        except BundleError as error:
            problems.append(f"{error.path.name}: {error.reason}")
    findings = [Finding("files", not problems, "; ".join(problems) or intact)]
    same = f"as in the checkpoint, in {' and '.join(cards)}"
    comparisons = {"labels": _labels, "spec": _spec, "temperature": _temperature}
    if any(card.unknown for card in cards.values()):
        comparisons["unknown"] = _unknown
    if any(card.biases for card in cards.values()):
        comparisons["biases"] = _biases
    for name, compare in comparisons.items():
        differences = {file: compare(card, subject.reference) for file, card in cards.items()}
        problems = [f"{file}: {text}" for file, text in differences.items() if text]
        findings.append(Finding(name, not problems, "; ".join(problems) or same))
    return tuple(findings)


def _file_damage(subject: Subject) -> tuple[list[BundleError], str]:
    """(errors, what to say if there are none)."""
    if subject.bundle:
        files = len(subject.bundle.manifest["files"])
        return subject.bundle.damage(), f"{files} files are as exported"
    try:
        with open_to_read(subject.path) as file:
            has_checksum = verify_checksum(subject.path, file.read())
    except BundleError as error:
        return [error], ""
    return [], "a lone file, as exported" if has_checksum else "a lone file without a checksum"


def _labels(card: ModelCard, reference: ModelCard) -> str:
    """How the labels differ; empty if they don't, here and below."""
    if len(card.labels) != len(reference.labels):
        return f"{len(card.labels)} labels, the checkpoint has {len(reference.labels)}"
    pairs = list(zip(card.labels, reference.labels, strict=True))
    wrong = [index for index, (label, expected) in enumerate(pairs) if label != expected]
    if not wrong:
        return ""
    label, expected = pairs[wrong[0]]
    where = f"label {wrong[0]} is {label!r}, in the checkpoint {expected!r}"
    return f"{where} ({len(wrong)} differ)"


def _spec(card: ModelCard, reference: ModelCard) -> str:
    found, expected = card.spec.to_dict(), reference.spec.to_dict()
    return ", ".join(
        f"{key} {found[key]}, in the checkpoint {expected[key]}"
        for key in found
        if found[key] != expected[key]
    )


def _temperature(card: ModelCard, reference: ModelCard) -> str:
    if card.temperature == reference.temperature:
        return ""
    return f"temperature {card.temperature}, in the checkpoint {reference.temperature}"


def _unknown(card: ModelCard, reference: ModelCard) -> str:
    found, expected = card.unknown, reference.unknown
    if found is None or expected is None:
        return (
            "" if found is expected else "only one of checkpoint and export can tell unknown photos"
        )
    return "; ".join(
        f"{name} {value}, by the checkpoint {getattr(expected, name)}"
        for name, value in vars(found).items()
        if name != "figures" and value != getattr(expected, name)
    )


def _biases(card: ModelCard, reference: ModelCard) -> str:
    if card.biases == reference.biases:
        return ""
    if card.biases is None or reference.biases is None:
        return "only one of checkpoint and export has maps"
    return "the biases of the logits are not the checkpoint's"
