"""What a check found, as files for people and for machines: HTML, JSON, JUnit."""
