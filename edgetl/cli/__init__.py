"""The ``edgetl`` command; one file a subcommand."""

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells report it."""
