"""How good a classifier is: validation, metrics, report."""
