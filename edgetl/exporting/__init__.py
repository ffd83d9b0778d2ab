"""From a trained classifier to a bundle: ONNX, TorchScript, torch.export; preprocessing inside."""
