"""The ``edgetl`` command; one file a subcommand."""
