"""A group split: photos of one group go to the same part, and each class keeps its share."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

_MAX_MOVES = 200_000  # of the search for an assignment with every class in both parts
_NOISE = 0.5  # share of the moves of a random group, where each move would cost a class a part


def assign_groups(groups: Sequence[Mapping[str, int]], val_fraction: float) -> list[bool]:
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

    def __init__(self, groups: Sequence[Mapping[str, int]]) -> None:
        self._groups = groups
        self.validates = [False] * len(groups)
        self.of_class: dict[str, list[int]] = {}
        for number, group in enumerate(groups):
            for name in group:
                self.of_class.setdefault(name, []).append(number)
        self._validating = dict.fromkeys(self.of_class, 0)  # class → groups
        self.one_sided = dict.fromkeys(
            name for name in self.of_class if self._is_one_sided(name, 0)
        )

    def photos(self, name: str) -> int:
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

    def fill(self, name: str, share: float) -> None:
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

    def _is_one_sided(self, name: str, validating: int) -> bool:
        """Whether a class of two or more groups is in one part only, given how many validate."""
        groups = len(self.of_class[name])
        return groups > 1 and validating in (0, groups)
