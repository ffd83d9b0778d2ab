"""The one split of photos: by rank of a salted hash within each class, copies in one part."""

from __future__ import annotations

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence

from edgetl.system.message_text import enumerated

_MAX_MOVES = 200_000  # of the search for an assignment with every class in both parts
_FAR = 0.5  # of a share, from which a difference is worth a warning
_NOISE = 0.5  # share of the moves of a random group, where each move would cost a class a part
# Hashed with the photos' digests: photos that were chosen by their SHA-256 itself, as by other
# programs, are then split like any others.
_SALT = b"edgetl split"


def validation_digests(
    photos: Iterable[tuple[str, Hashable]],
    val_fraction: float,
    together: Iterable[Sequence[str]] = (),
) -> set[str]:
    """The digests of the photos to validate on.

    photos        (digest of the content, class) of each photo, copies included
    val_fraction  share of each class's photos, above 0 and below 1
    together      digests that must stay in one part, as of near duplicates; each in one group

    In each class the photos with the smallest salted hashes are chosen, as many as make the share:
    it depends on the contents alone, and a new photo moves one other of its class at most, where no
    photos must stay together. See ``assign_groups`` for those, and for tiny classes.
    """
    classes: defaultdict[str, Counter[Hashable]] = defaultdict(Counter)
    for digest, name in photos:
        classes[digest][name] += 1
    groups = [list(group) for group in together]
    groups += [[digest] for digest in classes.keys() - {d for group in groups for d in group}]
    groups.sort(key=lambda group: hashlib.sha256(_SALT + min(group).encode()).digest())
    in_groups = [sum((classes[digest] for digest in group), Counter()) for group in groups]
    validates = assign_groups(in_groups, val_fraction)
    last_of_class = {name: number for number, found in enumerate(in_groups) for name in found}
    trained = {
        name for number, found in enumerate(in_groups) if not validates[number] for name in found
    }
    for name, number in last_of_class.items():
        if name not in trained:  # none can be spared: training comes first
            validates[number] = False
    return {
        digest
        for group, validating in zip(groups, validates, strict=True)
        if validating
        for digest in group
    }


def share_warnings(
    purpose: str, share: float, chosen: Mapping[str, int], photos: Mapping[str, int]
) -> Iterator[str]:
    """A sentence that names the classes which are far from the share that was asked for.

    purpose  what the chosen photos are for: "to validate on"
    chosen, photos  how many were chosen and how many there are, by class
    """
    far = [
        f"{name} ({chosen[name]:,} of {count:,})"
        for name, count in photos.items()
        if abs(chosen[name] - share * count) > max(1, _FAR * min(share, 1 - share) * count)
    ]
    if far:
        yield (
            f"The share of photos {purpose} is far from {100 * share:g}% for {enumerated(far)}: "
            "some are copies that must stay together, or can't be read."
        )


def assign_groups(groups: Sequence[Mapping[Hashable, int]], val_fraction: float) -> list[bool]:
    """For each group, whether it is for validation. Deterministic.

    groups        the number of photos of each class in it; earlier groups validate first
    val_fraction  share of each class's photos for validation, between 0 and 1

    If each group holds a single class, the share of each class is met to within one group. A group
    of several classes counts for all of them, which may then miss their shares by more. Every class
    of two or more groups is in both parts, if such an assignment is found. Finding it can be hard
    (set splitting, problem SP4 of Garey and Johnson, 1979), so this is a local search, similar to
    WalkSAT (Selman, Kautz and Cohen, 1994): while a class is in one part only, one of its groups is
    moved. It is the one that leaves the fewest classes in one part only, and of these the smallest,
    or sometimes a random one.
    """
    assignment = _Assignment(groups)
    # Large classes come last: they can make up for groups that they share with small ones.
    for name in sorted(assignment.of_class, key=assignment.photos):
        assignment.fill(name, val_fraction)
    generator = random.Random(0)
    for _ in range(_MAX_MOVES):
        if not assignment.one_sided:
            break
        candidates = assignment.of_class[next(iter(assignment.one_sided))]
        group = min(candidates, key=lambda group: (assignment.cost(group), assignment.size(group)))
        if assignment.cost(group) and generator.random() < _NOISE:
            group = generator.choice(candidates)
        assignment.move(group)
    return assignment.validates


class _Assignment:
    """Which groups are for validation.

    validates  for each group
    of_class   class → its groups
    one_sided  classes of two or more groups that are in one part only, the oldest first (a dict as
               an ordered set)
    """

    def __init__(self, groups: Sequence[Mapping[Hashable, int]]) -> None:
        self._groups = groups
        self.validates = [False] * len(groups)
        self.of_class: dict[Hashable, list[int]] = {}
        for number, group in enumerate(groups):
            for name in group:
                self.of_class.setdefault(name, []).append(number)
        self._validating = dict.fromkeys(self.of_class, 0)  # class → groups
        self.one_sided = dict.fromkeys(
            name for name in self.of_class if self._is_one_sided(name, 0)
        )

    def photos(self, name: Hashable) -> int:
        return sum(self._groups[group][name] for group in self.of_class[name])

    def size(self, group: int) -> int:
        return sum(self._groups[group].values())

    def move(self, group: int) -> None:
        self.validates[group] = not self.validates[group]
        for name in self._groups[group]:
            self._validating[name] += 1 if self.validates[group] else -1
            if self._is_one_sided(name, self._validating[name]):
                self.one_sided[name] = None
            else:
                self.one_sided.pop(name, None)

    def fill(self, name: Hashable, share: float) -> None:
        """Move groups of a class to validation, in order, while they fit into its share.

        Then also the smallest of the others, if that comes nearer to the share. Groups without
        another class come first, since they change no other's share.
        """
        mine = sorted(self.of_class[name], key=lambda group: len(self._groups[group]))
        sizes = {group: self._groups[group][name] for group in mine}
        wanted = share * self.photos(name) - sum(
            size for group, size in sizes.items() if self.validates[group]
        )
        left = {group: size for group, size in sizes.items() if not self.validates[group]}
        for group, size in list(left.items()):
            if size <= wanted:
                self.move(group)
                wanted -= left.pop(group)
        if left:
            smallest = min(left, key=lambda group: left[group])
            if left[smallest] <= 2 * wanted:
                self.move(smallest)

    def cost(self, group: int) -> int:
        """How many of its classes would be in one part only if ``group`` were moved."""
        change = -1 if self.validates[group] else 1
        return sum(
            self._is_one_sided(name, self._validating[name] + change)
            for name in self._groups[group]
        )

    def _is_one_sided(self, name: Hashable, validating: int) -> bool:
        """Whether a class of two or more groups is in one part only, given how many validate."""
        groups = len(self.of_class[name])
        return groups > 1 and validating in (0, groups)
