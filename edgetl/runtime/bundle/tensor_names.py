"""Names of the tensors in an exported graph: a contract with every program that runs one."""

IMAGES = "images"  # input, uint8 [N, H, W, 3]
RESIZED = "resized"  # inside, uint8 [N, h, w, 3]
NORMALIZED = "normalized"  # inside, float32 [N, 3, h, w]: the network's input
FEATURES = "features"  # inside, float32 [N, features]: the classifier layer's input
LOGITS = "logits"  # output, float32 [N, classes]
PROBABILITIES = "probabilities"  # output, float32 [N, classes]
# Outputs that not every graph has:
EMBEDDING = "embedding"  # float32 [N, dimensions]: the features' place among the training photos
OOD_SCORE = "ood_score"  # float32 [N]: the higher, the less like the training photos
EVIDENCE = "evidence"  # float32 [N, classes, h, w]: which parts of the photo speak for each class

ANSWERS = (LOGITS, PROBABILITIES)
"""What every model gives."""
SCORES = (OOD_SCORE, EMBEDDING)
"""What models that can tell unknown photos give, too."""
