"""Training photos on their way to the network: decoded, cached, sampled, augmented."""
