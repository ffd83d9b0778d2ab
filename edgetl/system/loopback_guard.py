"""Which requests a web server on the loopback interface may answer.

Any page in the same browser may send requests to this machine, and any program on it may ask for
its ports. So every request needs a random token in its path, must be addressed to this machine
(or a name that an attacker has led here would count as the page's own origin), and may change
something only if it comes from the page itself.
"""

from __future__ import annotations

import secrets

LOOPBACK = "127.0.0.1"
# By which the browser protects the page, too; a server adds its own Content-Security-Policy.
PROTECTIVE_HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def new_token() -> str:
    """32 random characters for a path."""
    return secrets.token_urlsafe(24)


class LoopbackGuard:
    """Of a server on ``port`` whose pages are below ``/TOKEN/``; ``root`` is that without the
    last slash."""

    def __init__(self, port: int, token: str) -> None:
        self.root = f"/{token}"
        self._hosts = {f"{name}:{port}" for name in (LOOPBACK, "localhost")}

    def refusal(
        self, method: str, path: str, host: str, origin: str | None
    ) -> tuple[int, str] | None:
        """(status, why) of a request that must not be answered; ``path`` without the query."""
        if host not in self._hosts:
            return 403, "This server answers only as this machine."
        root = self.root.encode()
        if not secrets.compare_digest(path.encode()[: len(root) + 1], root + b"/"):
            return 404, "Not found."
        if method not in ("GET", "HEAD") and origin != f"http://{host}":
            return 403, "Only the page itself may do this."
        return None
