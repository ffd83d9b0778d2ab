"""More photos than one machine classifies: the same answers from the workers of a Ray cluster."""
