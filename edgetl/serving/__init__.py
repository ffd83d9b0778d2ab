"""Pages for a browser on the same machine, served on the loopback interface alone."""
