"""What runs on the device: numpy, Pillow and onnxruntime, never torch."""
