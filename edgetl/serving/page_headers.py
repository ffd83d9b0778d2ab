"""Headers by which the browser protects a page: it loads its own files and nothing else."""

from __future__ import annotations

from edgetl.system.loopback_guard import PROTECTIVE_HEADERS

PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    **PROTECTIVE_HEADERS,
}
