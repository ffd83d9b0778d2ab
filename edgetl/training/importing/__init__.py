"""Networks trained elsewhere, made into runs that can be exported and checked."""
