"""Predictions as rows of files: JSON lines, CSV, Parquet."""
