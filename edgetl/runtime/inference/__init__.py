"""Running a model: session, predictor, self-test, benchmark."""
