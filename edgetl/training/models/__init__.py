"""Backbones, their pretrained weights, checkpoints, and what of them is trained."""
