"""What the terminal says of how well unknown photos are noticed."""

from __future__ import annotations

import pytest

from edgetl.cli.terminal.figures import noticed_unknown

FOUND = {"photos": 1200, "let_in": 0.274, "auroc": 0.8187}


def test_the_users_own_unknown_photos_come_first() -> None:
    figures = {
        "left_out_classes": FOUND,
        "unknown_folder": {**FOUND, "photos": 1},
    }
    own, left_out = noticed_unknown(figures)
    assert own.startswith("73% of 1 photo in unknown/ noticed")
    assert left_out == (
        "73% of 1,200 photos of left-out classes noticed, where 95% of known ones are kept "
        "(AUROC 81.9%)"
    )


@pytest.mark.parametrize("strange", [None, "words", [], 10**400])
def test_what_a_file_holds_in_their_place_is_left_out(strange: object) -> None:
    for name in ("let_in", "auroc"):
        figures = {"unknown_folder": {**FOUND, name: strange}}
        assert list(noticed_unknown(figures)) == []
    assert list(noticed_unknown({"unknown_folder": strange})) == []
