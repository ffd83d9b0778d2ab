"""From a folder of labelled photos to a checkpoint."""
