"""The socket that a server listens on."""

from __future__ import annotations

import errno
import os
import socket

from edgetl.errors import EdgetlError

BACKLOG = 2048  # connections that wait to be accepted


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0: a free one. Raises EdgetlError if the address can't be used."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            if os.name == "posix":  # elsewhere it would share the port with another program
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
    except (OSError, UnicodeError) as error:  # UnicodeError: the name is longer than names can be
        hint, reason = "Choose another one with --port.", getattr(error, "strerror", None)
        is_of_host = isinstance(error, (socket.gaierror, UnicodeError))
        if is_of_host or getattr(error, "errno", None) == errno.EADDRNOTAVAIL:
            hint = "--host takes an address of this machine, such as 127.0.0.1, or 0.0.0.0 for all."
        raise EdgetlError(
            f"Port {port} can't be used on {host}: {reason or 'there is no such host'}.", hint
        ) from error
    return listener
