"""Why a photo can't be read, as more than one file says it."""

UNREACHABLE = "its store can't be reached"
"""Trying again did not help; a later run may read it."""

MAX_PHOTO_BYTES = 1 << 30
"""Of a photo that is read whole, or from where its size is unknown; no sensible one is longer."""
