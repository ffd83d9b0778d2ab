"""Frozen features, and the linear head that is fitted on them."""
