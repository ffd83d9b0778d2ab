"""Optimizers, learning-rate schedules, losses and averages of weights."""
