"""What a classifier is exported to: ONNX, TorchScript, torch.export."""
