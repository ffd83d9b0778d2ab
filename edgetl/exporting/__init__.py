"""From a trained classifier to files that run elsewhere: TorchScript and ONNX with the preprocessing inside."""
