"""How good a classifier's answers are: figures, drawings, the report, and the test of a bundle."""
