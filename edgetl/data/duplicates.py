"""Exact and near duplicates in a folder, which must stay in the same part of a split."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgetl.data.fingerprints import (
    Fingerprint,
    are_unrotated,
    near_duplicate_groups,
    rotated_duplicate_groups,
)
from edgetl.data.inspection import Inspection

_STATIC_SCENE = 30  # photos; bursts and series of copies are smaller
_ORIENTATIONS = 8  # of one photo: four rotations, mirrored or not


@dataclass(frozen=True)
class NearDuplicates:
    """Two or more photos that differ in their bytes and look the same.

    digests       SHA-256 of the files' bytes, hex
    rotated       whether some are mirrored or rotated by 90, 180 or 270 degrees
    static_scene  whether they are 30 or more of one class and over half of it. Then they are not
                  copies of one photo, but what a fixed camera or a form produces, and their small
                  differences are what there is to learn
    """

    digests: Sequence[str]
    rotated: bool = False
    static_scene: bool = False


def by_content(inspections: Iterable[Inspection]) -> dict[str, list[Inspection]]:
    """The usable photos by the digest of their bytes, so that exact duplicates come together."""
    copies: dict[str, list[Inspection]] = defaultdict(list)
    for item in inspections:
        if item.usable:
            copies[item.digest].append(item)
    return copies


def find_near_duplicates(
    copies: Mapping[str, Sequence[Inspection]], class_of: Callable[[Inspection], str]
) -> list[NearDuplicates]:
    """All groups of near duplicates; a photo is in at most one of them.

    copies    usable photos by digest; those without a fingerprint are in no group
    class_of  a photo's class

    Rotated and mirrored copies are searched for within each class only: the orientation may be what
    tells two classes apart.
    """
    classes = {digest: class_of(same[0]) for digest, same in copies.items()}
    totals = Counter(classes.values())
    fingerprints = {
        digest: same[0].fingerprint
        for digest, same in copies.items()
        if same[0].fingerprint is not None
    }

    def is_static(group: list[str]) -> bool:
        counts = Counter(classes[digest] for digest in group)
        return any(
            count >= _STATIC_SCENE and 2 * count > totals[name] for name, count in counts.items()
        )

    upright = _groups(near_duplicate_groups, fingerprints)
    static = [NearDuplicates(group, static_scene=True) for group in upright if is_static(group)]
    upright = [group for group in upright if not is_static(group)]

    in_static = {digest for group in static for digest in group.digests}
    of_class: dict[str, dict[str, Fingerprint]] = defaultdict(dict)
    for digest, found in fingerprints.items():
        if digest not in in_static:
            of_class[classes[digest]][digest] = found
    rotated = [
        group
        for members in of_class.values()
        for group in _groups(rotated_duplicate_groups, members)
    ]

    upright_group = {digest: number for number, group in enumerate(upright) for digest in group}
    found_groups = []
    for group in _merged([*upright, *rotated]):
        orientations: dict[int | str, list[str]] = defaultdict(list)
        for digest in group:
            orientations[upright_group.get(digest, digest)].append(digest)
        if len(orientations) <= _ORIENTATIONS and not is_static(group):
            members = [[fingerprints[d] for d in digests] for digests in orientations.values()]
            found_groups.append(NearDuplicates(group, rotated=not are_unrotated(members)))
        else:  # many objects of one shape in various orientations, not one photo
            found_groups += [NearDuplicates(d) for d in orientations.values() if len(d) > 1]
    return found_groups + static


def _groups(
    find: Callable[[list[Fingerprint]], list[list[int]]], fingerprints: Mapping[str, Fingerprint]
) -> list[list[str]]:
    digests = list(fingerprints)
    found = find(list(fingerprints.values()))
    return [[digests[index] for index in group] for group in found]


def _merged(groups: Iterable[list[str]]) -> list[list[str]]:
    """Groups that share a member become one."""
    group_of: dict[str, list[str]] = {}
    for group in groups:
        sharing = [group_of.get(member, [member]) for member in group]
        merged = [member for found in {id(g): g for g in sharing}.values() for member in found]
        group_of.update(dict.fromkeys(merged, merged))
    return list({id(group): group for group in group_of.values()}.values())
