"""How a program outside this process is asked for a photo's stages, and answers.

A message is the bytes of a photo's file, the answer is a sequence of arrays, each a line of ASCII
and its values in little-endian order, rows first:

    decoded uint8 480 640 3\n…resized uint8 224 224 3\n…logits float32 2\n…

or one line that starts with "refused", for a photo that can't be decoded, or with "failed":

    refused it is cut short\n

Through a pipe, message and answer each come after their length in bytes as a uint32, little-endian.
"""

from __future__ import annotations

import struct
from typing import IO, Any

import numpy as np

from edgetl.parity.stages import STAGES, Refusal, Stages

_LENGTH = struct.Struct("<I")
_TYPES: dict[str, np.dtype[Any]] = {"uint8": np.dtype("u1"), "float32": np.dtype("<f4")}


def write_message(stream: IO[bytes], content: bytes) -> None:
    """Raises OSError, or ValueError if the stream is closed."""
    stream.write(_LENGTH.pack(len(content)))
    stream.write(content)
    stream.flush()


def read_message(stream: IO[bytes]) -> bytes | None:
    """The next message; None where the stream ends before it does."""
    length = stream.read(_LENGTH.size)
    if len(length) < _LENGTH.size:
        return None
    (size,) = _LENGTH.unpack(length)
    content = stream.read(size)
    return content if len(content) == size else None


def encode_stages(stages: Stages | Refusal) -> bytes:
    """The answer for one photo."""
    if isinstance(stages, Refusal):
        return f"refused {' '.join(stages.reason.split())}\n".encode()
    parts: list[bytes] = []
    for stage in STAGES:
        if (values := stages.at(stage)) is not None:
            values = np.asarray(values, _TYPES.get(values.dtype.name, _TYPES["float32"]))
            header = " ".join([stage, values.dtype.name, *map(str, values.shape)])
            parts += [header.encode() + b"\n", values.tobytes()]
    return b"".join(parts)


def parse_stages(answer: bytes) -> Stages | Refusal:
    """What ``encode_stages``, or a program in another language, wrote.

    Raises RuntimeError with its reason where the program failed, ValueError if it is no answer.
    """
    found = {}
    at = 0
    while at < len(answer):
        end = answer.index(b"\n", at)
        word, _, rest = answer[at:end].decode().partition(" ")
        if word == "refused":
            return Refusal(rest)
        if word == "failed":
            raise RuntimeError(rest)
        if word not in STAGES:
            raise ValueError(f"the program answered with {word[:40]!r}, which is no stage")
        kind, *sizes = rest.split()
        shape = tuple(map(int, sizes))
        values = np.frombuffer(answer, _TYPES[kind], int(np.prod(shape)), end + 1)
        found[word] = values.reshape(shape)
        at = end + 1 + values.nbytes
    if not found:
        raise ValueError("the program answered with nothing")
    return Stages(**found)
