"""Run the same photos through every runtime, compare stage by stage, and say where an answer first differs."""
