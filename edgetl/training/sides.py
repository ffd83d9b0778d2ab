"""Which photos validate: of each class its share, and some on either side, though copies must stay together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

_TURNS = 10_000  # before the search for a side for everything is given up


def deal(groups: Sequence[Mapping[str, int]], share: float) -> list[bool]:
    """For each group, whether it validates.

    groups  how many photos of which classes each holds. Which come first decides who validates
    share   of the photos of each class that shall validate, between 0 and 1

    Of each class the share is met to within one group, and groups are left on both sides where that can be found. It can
    be hard where groups hold several classes (set splitting, problem SP4 of Garey and Johnson, 1979), so that it is
    searched for: while a class is on one side, that group of it moves which leaves the fewest other classes so, of those
    the one that rested longest, of those the smallest.
    """
    table = _Table(groups)
    for name in table.of_class:
        table.fill(name, share)
    moved: dict[int, int] = {}
    for turn in range(_TURNS):
        stranded = next(table.stranded(), None)
        if stranded is None:
            break
        group = min(table.of_class[stranded], key=lambda group: (table.strands(group), moved.get(group, -1), table.size(group)))
        table.move(group)
        moved[group] = turn
    return table.validates


class _Table:
    """Where each group lies.

    of_class  class → its groups
    """

    def __init__(self, groups: Sequence[Mapping[str, int]]) -> None:
        self._groups = groups
        self.validates = [False] * len(groups)
        self.of_class: dict[str, list[int]] = {}
        for number, group in enumerate(groups):
            for name in group:
                self.of_class.setdefault(name, []).append(number)
        self._validating: Counter[str] = Counter()  # class → groups

    def size(self, group: int) -> int:
        return sum(self._groups[group].values())

    def move(self, group: int) -> None:
        self.validates[group] = not self.validates[group]
        for name in self._groups[group]:
            self._validating[name] += 1 if self.validates[group] else -1

    def fill(self, name: str, share: float) -> None:
        """Have the first groups of a class validate that fit into its share, and of the rest one that comes nearer to it."""
        sizes = {group: self._groups[group][name] for group in self.of_class[name]}
        wanted = share * sum(sizes.values()) - sum(size for group, size in sizes.items() if self.validates[group])
        left = {group: size for group, size in sizes.items() if not self.validates[group]}
        for group, size in list(left.items()):
            if size <= wanted:
                self.move(group)
                wanted -= left.pop(group)
        if left:
            smallest = min(left, key=lambda group: left[group])
            if left[smallest] <= 2 * wanted:
                self.move(smallest)

    def stranded(self) -> Iterator[str]:
        """Classes that could be on both sides, and are on one."""
        return (name for name in self.of_class if self._one_sided(name, self._validating[name]))

    def strands(self, group: int) -> int:
        """How many classes would be so if ``group`` moved."""
        change = -1 if self.validates[group] else 1
        return sum(self._one_sided(name, self._validating[name] + change) for name in self._groups[group])

    def _one_sided(self, name: str, validating: int) -> bool:
        groups = len(self.of_class[name])
        return groups > 1 and validating in (0, groups)
