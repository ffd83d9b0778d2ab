"""Names of the tensors in an exported graph: a contract with every program that runs one."""

IMAGES = "images"  # input, uint8 [N, H, W, 3]
RESIZED = "resized"  # inside, uint8 [N, h, w, 3]
NORMALIZED = "normalized"  # inside, float32 [N, 3, h, w]: the network's input
LOGITS = "logits"  # output, float32 [N, classes]
PROBABILITIES = "probabilities"  # output, float32 [N, classes]
