"""Folders of labelled photos, without torch: layout, images, audit, duplicates, split."""
