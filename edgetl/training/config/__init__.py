"""The settings of a run, its recipes and its folder."""
