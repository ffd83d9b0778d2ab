"""A photo on its way to the network: the specification, finding, decoding, resizing."""
