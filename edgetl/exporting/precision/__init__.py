"""Reduced precisions, fp16 and int8, and the accuracy that they must keep."""
