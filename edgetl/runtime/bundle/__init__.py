"""What an export is on disk: the folder, its manifest, the model card, checksums."""
