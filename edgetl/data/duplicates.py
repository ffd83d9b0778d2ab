"""Which photos of a folder are the same, or look the same, and must not come apart."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgetl.data.fingerprints import Fingerprint, near_groups, turned_groups, upright_alike
from edgetl.data.inspection import Inspection

_CROWD = 30  # photos; bursts and series of copies are smaller
_POSITIONS = 8  # of one photo: four quarters, mirrored or not

Copies = Mapping[str, Sequence[Inspection]]  # usable photos by the digest of their bytes


def same_content(inspections: Iterable[Inspection]) -> Copies:
    """Gather photos of the same bytes; files that training can't use are passed over."""
    copies: dict[str, list[Inspection]] = defaultdict(list)
    for item in inspections:
        if item.usable:
            copies[item.digest].append(item)
    return copies


@dataclass(frozen=True)
class Lookalikes:
    """Two or more photos that differ in their bytes and look the same.

    digests  of theirs
    turned   whether some are mirrored or turned by quarters
    crowd    whether 30 or more are of one class and over half of it: it is not one photo many times, but many that a fixed
             camera or a form makes alike, whose differences are what there is to learn
    """

    digests: Sequence[str]
    turned: bool = False
    crowd: bool = False


def lookalikes(copies: Copies, class_of: Callable[[Inspection], str]) -> list[Lookalikes]:
    """All of them, each photo once at most; those of several classes only as they are, since how a thing is turned can be
    what tells two classes apart. class_of: a photo's class."""
    prints = {digest: same[0].fingerprint for digest, same in copies.items()}
    known = {
        digest: found for digest, found in prints.items() if found is not None
    }  # the others are flat
    classes = {digest: class_of(same[0]) for digest, same in copies.items()}
    totals = Counter(classes.values())

    def is_crowd(group: list[str]) -> bool:
        held = Counter(classes[digest] for digest in group)
        return any(
            number >= _CROWD and 2 * number > totals[where] for where, number in held.items()
        )

    upright = _grouped(near_groups, known)
    crowds = [Lookalikes(group, crowd=True) for group in upright if is_crowd(group)]
    upright = [group for group in upright if not is_crowd(group)]
    crowded = {digest for crowd in crowds for digest in crowd.digests}
    of_class: dict[str, dict[str, Fingerprint]] = defaultdict(dict)
    for digest, found in known.items():
        if digest not in crowded:
            of_class[classes[digest]][digest] = found
    turned = [group for members in of_class.values() for group in _grouped(turned_groups, members)]
    looks = {digest: number for number, group in enumerate(upright) for digest in group}
    kept = []
    for group in _united([*upright, *turned]):
        positions: dict[int | str, list[str]] = defaultdict(list)
        for digest in group:
            positions[looks.get(digest, digest)].append(digest)
        if len(positions) <= _POSITIONS and not is_crowd(group):
            upright_ones = [[known[digest] for digest in digests] for digests in positions.values()]
            kept.append(Lookalikes(group, turned=not upright_alike(upright_ones)))
        else:  # many things of one form, lying this way or that
            kept += [Lookalikes(digests) for digests in positions.values() if len(digests) > 1]
    return kept + crowds


def _grouped(
    find: Callable[[list[Fingerprint]], list[list[int]]], known: Mapping[str, Fingerprint]
) -> list[list[str]]:
    digests = list(known)
    return [[digests[position] for position in group] for group in find(list(known.values()))]


def _united(groups: Iterable[list[str]]) -> list[list[str]]:
    """Groups that share a member become one."""
    home: dict[str, list[str]] = {}
    for group in groups:
        homes = {id(found): found for found in (home.get(member, [member]) for member in group)}
        whole = [member for found in homes.values() for member in found]
        home.update(dict.fromkeys(whole, whole))
    return list({id(group): group for group in home.values()}.values())
