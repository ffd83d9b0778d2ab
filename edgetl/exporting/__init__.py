"""From a trained classifier to a bundle: ONNX, TorchScript and torch.export, preprocessing inside."""
