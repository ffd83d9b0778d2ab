"""Tracing a network to an ONNX graph; reading, writing and rewriting graphs."""
