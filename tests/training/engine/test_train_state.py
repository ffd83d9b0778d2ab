"""Where a run stands, as a file: what is no such file, or can not be read."""

from __future__ import annotations

import os

import pytest

from edgetl.errors import CheckpointError
from edgetl.training.config.run_folder import LAST
from edgetl.training.engine.train_state import read_state


def test_a_pipe_in_place_of_a_state_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / LAST)
    with pytest.raises(CheckpointError, match="no regular file"):
        read_state(tmp_path)


def test_a_state_that_may_not_be_read_is_not_thrown_away(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    (tmp_path / LAST).touch()
    monkeypatch.setattr("edgetl.training.engine.train_state.zipfile.ZipFile", refuse)
    with pytest.raises(CheckpointError, match="Permission denied") as caught:
        read_state(tmp_path)
    assert "--overwrite" not in caught.value.hint
