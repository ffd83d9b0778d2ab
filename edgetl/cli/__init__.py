"""The ``edgetl`` command; one file a subcommand."""

INTERRUPTED = 130
"""The exit code after Ctrl-C: what a shell reports for it."""
