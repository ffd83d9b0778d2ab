"""Which photos validate: of each class its share, and some on either side, though copies must stay together."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

_TURNS = 200_000  # before the search for a side for everything is given up
_NOISE = 0.5  # share of the turns that move any group, where each would strand a class


def deal(groups: Sequence[Mapping[str, int]], share: float) -> list[bool]:
    """For each group, whether it validates; the same for the same groups.

    groups  how many photos of which classes each holds. Which come first decides who validates
    share   of the photos of each class that shall validate, between 0 and 1

    Where groups hold one class each, the share of each class is met to within one group; those of several classes count
    for all of them at once, which may then miss it by more. Groups are left on both sides where that can be found. It can
    be hard where they hold several classes (set splitting, problem SP4 of Garey and Johnson, 1979), so that it is searched
    for, as by WalkSAT (Selman, Kautz and Cohen, 1994): while a class is on one side, one of its groups moves, the one that
    strands the fewest classes, of those the smallest, or now and then any.
    """
    table = _Table(groups)
    for name in sorted(
        table.of_class, key=table.photos
    ):  # large ones can make up for what their parts have taken
        table.fill(name, share)
    chance = random.Random(0)
    for _ in range(_TURNS):
        if not table.stranded:
            break
        candidates = table.of_class[next(iter(table.stranded))]
        group = min(candidates, key=lambda group: (table.strands(group), table.size(group)))
        if table.strands(group) and chance.random() < _NOISE:
            group = chance.choice(candidates)
        table.move(group)
    return table.validates


class _Table:
    """Where each group lies.

    of_class  class → its groups
    stranded  classes that could be on both sides, and are on one: a set in the order in which they became so
    """

    def __init__(self, groups: Sequence[Mapping[str, int]]) -> None:
        self._groups = groups
        self.validates = [False] * len(groups)
        self.of_class: dict[str, list[int]] = {}
        for number, group in enumerate(groups):
            for name in group:
                self.of_class.setdefault(name, []).append(number)
        self._validating = dict.fromkeys(self.of_class, 0)  # class → groups
        self.stranded = dict.fromkeys(name for name in self.of_class if self._one_sided(name, 0))

    def photos(self, name: str) -> int:
        return sum(self._groups[group][name] for group in self.of_class[name])

    def size(self, group: int) -> int:
        return sum(self._groups[group].values())

    def move(self, group: int) -> None:
        self.validates[group] = not self.validates[group]
        for name in self._groups[group]:
            self._validating[name] += 1 if self.validates[group] else -1
            if self._one_sided(name, self._validating[name]):
                self.stranded[name] = None
            else:
                self.stranded.pop(name, None)

    def fill(self, name: str, share: float) -> None:
        """Have the first groups of a class validate that fit into its share, and of the rest one that comes nearer to it.

        Those that hold no other class come first: they change no other's share.
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

    def strands(self, group: int) -> int:
        """How many classes would be on one side only if ``group`` moved."""
        change = -1 if self.validates[group] else 1
        return sum(
            self._one_sided(name, self._validating[name] + change) for name in self._groups[group]
        )

    def _one_sided(self, name: str, validating: int) -> bool:
        """Whether a class that could be on both sides is not, with so many of its groups validating."""
        groups = len(self.of_class[name])
        return groups > 1 and validating in (0, groups)
