"""One training run from settings to a run folder."""
