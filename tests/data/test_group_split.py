"""Assigning groups of photos to train and val: shares are met, classes are in both parts."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest

from edgetl.data.group_split import assign_groups


def parts_of(groups, assigned, name):
    return {side for group, side in zip(groups, assigned, strict=True) if name in group}


@pytest.mark.parametrize(
    ("photos", "share", "validating"),
    [(10, 0.2, 2), (13, 0.2, 3), (12, 0.2, 2), (5, 0.5, 3), (7, 0.9, 6)],
)
def test_the_first_photos_of_a_class_validate_up_to_its_share(photos, share, validating):
    assert assign_groups([{"cat": 1}] * photos, share) == [True] * validating + [False] * (
        photos - validating
    )


@pytest.mark.parametrize(
    ("sizes", "validating"),
    [
        ([3, 1, 1, 1, 1, 1, 1, 1], [1, 2]),  # 2 of 10: three at once would be too many
        ([7, 1, 1, 1], [1, 2]),
        ([4, 6], [0]),  # two too many, rather than two too few
        ([1, 9], [0]),
        ([9, 1], [1]),
        ([5, 5, 5, 5], [0]),  # 4 of 20
        ([7, 5, 8], [1]),
    ],
)
def test_groups_come_as_near_to_the_share_as_one_group_allows(sizes, validating):
    assigned = assign_groups([{"cat": size} for size in sizes], 0.2)
    assert [number for number, side in enumerate(assigned) if side] == validating


def test_what_validates_for_one_class_counts_for_the_next():
    groups = [{"cat": 1, "dog": 1}, {"cat": 1, "dog": 1}, *[{"dog": 1}] * 8]
    assert assign_groups(groups, 0.5) == [True, False] + [True] * 4 + [False] * 4


def test_groups_of_a_single_class_come_first():
    groups = [{"cat": 2, "dog": 2}, *[{"cat": 1}] * 8, *[{"dog": 1}] * 8]
    assert assign_groups(groups, 0.2) == [
        False,
        *[True] * 2,
        *[False] * 6,
        *[True] * 2,
        *[False] * 6,
    ]


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_each_class_is_in_both_parts_however_small_the_share(share):
    groups = [{"cat": 5}, {"cat": 2}, {"cat": 3}, {"dog": 1}, {"dog": 1}]
    assigned = assign_groups(groups, share)
    assert parts_of(groups, assigned, "cat") == parts_of(groups, assigned, "dog") == {True, False}
    # The smallest group that could move is in the other part.
    assert assigned[:3] in ([False, True, False], [True, False, True])


def test_a_class_of_one_group_does_not_disturb_the_others():
    assert assign_groups([{"cat": 1}, {"dog": 1}, {"dog": 1}], 0.5)[1:] in (
        [True, False],
        [False, True],
    )


def test_classes_in_a_long_chain_end_in_both_parts():
    """Each class has two groups, shared with its neighbours: the first one decides all others."""
    for seed in range(20):
        order = random.Random(seed)
        chain = [{str(number): 1, str(number + 1): 1} for number in range(200)]
        order.shuffle(chain)
        assigned = assign_groups(chain, 0.2)
        for number in range(1, 200):
            assert parts_of(chain, assigned, str(number)) == {True, False}


def test_classes_of_two_groups_that_form_a_tree_end_in_both_parts():
    order = random.Random(3)
    groups: list[dict[str, int]] = [{} for _ in range(300)]
    for number in range(1, 300):
        for group in (number, order.randrange(number)):
            groups[group][str(number)] = 1
    assigned = assign_groups(groups, 0.2)
    assert all(parts_of(groups, assigned, str(number)) == {True, False} for number in range(1, 300))


def test_an_assignment_with_all_classes_in_both_parts_is_found_if_there_is_one():
    order = random.Random(7)
    possible = 0
    for _ in range(1500):
        names = "abcdef"[: order.randint(2, 6)]
        groups = [
            dict.fromkeys(order.sample(names, order.randint(1, min(3, len(names)))), 1)
            for _ in range(order.randint(2, 8))
        ]
        spread = [name for name in names if sum(name in group for group in groups) > 1]
        ways = itertools.product([False, True], repeat=len(groups))
        if not any(
            all(parts_of(groups, way, name) == {True, False} for name in spread) for way in ways
        ):
            continue
        possible += 1
        assigned = assign_groups(groups, order.choice([0.2, 0.5, 0.8]))
        assert all(parts_of(groups, assigned, name) == {True, False} for name in spread), groups
    assert possible > 1000


@pytest.mark.usefixtures("few_moves")
def test_the_search_ends_if_there_is_none():
    triangle = [{"a": 1, "b": 1}, {"b": 1, "c": 1}, {"c": 1, "a": 1}]
    assigned = assign_groups(triangle, 0.5)
    assert sum(parts_of(triangle, assigned, name) == {True, False} for name in "abc") == 2


def test_thousands_of_classes_are_fast():
    """Of two photos each, both would be in one part at first."""
    groups = [{str(number // 2): 1} for number in range(40_000)]
    assigned = assign_groups(groups, 0.2)
    assert sum(assigned) == 20_000 and all(
        one != other for one, other in zip(assigned[::2], assigned[1::2], strict=True)
    )


def test_a_class_with_the_photos_of_others_leaves_them_their_shares():
    """It makes up for them with photos of its own."""
    groups = (
        [{"all": 1, "dog": 1} for _ in range(10)]
        + [{"all": 1, "cat": 1} for _ in range(20)]
        + [{"all": 1}] * 70
    )
    random.Random(0).shuffle(groups)
    assigned = assign_groups(groups, 0.2)
    validating = Counter(
        name for group, side in zip(groups, assigned, strict=True) if side for name in group
    )
    assert validating == {"dog": 2, "cat": 4, "all": 20}
