"""A check's result as a file: HTML for people, JSON for programs, JUnit XML for CI systems."""
