"""From a photo to the network's input: discovery, decoding, resize, and their specification."""
