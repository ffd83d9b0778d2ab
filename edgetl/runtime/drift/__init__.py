"""Do today's photos look like those that a model was trained on? With numpy alone."""
