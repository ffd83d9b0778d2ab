"""Measure how far an export is from the trained network, or from another export."""
