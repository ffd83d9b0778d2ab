"""Models as an HTTP service, and pages for a browser on the same machine."""
