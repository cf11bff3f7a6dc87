"""One question to the daemon, with nothing imported: a shell that completes and a hook that runs with every prompt have
50 ms in all, and `import json` alone would take a fifth of them.

It speaks the binary face, of which clients/PROTOCOL.md is the contract: a frame is four bytes of length and msgpack.
"""

from __future__ import annotations

import os
from _socket import AF_UNIX, SOCK_STREAM, socket
from time import monotonic

from agentd.wire.paths import socket_path

TYPE_CHECKING = False  # as typing has it, without importing that
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

# As agentd.wire has them; the tests compare.
MAGIC = 0xA9
VERSION = 1
HELLO, LEAVE, NOTICE, COMPLETION = 1, 3, 45, 46
ERROR, NOTICE_VIEW, COMPLETION_VIEW = 63, 97, 98

_CID = 1
_MOST_BYTES = 1 << 20


class Quick:
    """A connection for one question. OSError and ValueError for all that can go wrong; nothing takes longer than
    `until`, a time of the monotonic clock."""

    def __init__(self, until: float) -> None:
        self._until = until
        self._socket = socket(AF_UNIX, SOCK_STREAM)

    def __enter__(self) -> Quick:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._socket.close()

    def ask(self, verb: list[Any], answer: int) -> list[Any]:
        """The fields of the answer behind its cid; ValueError when it is another than the one with this tag."""
        tag, *fields = verb
        self._hurry()
        self._socket.connect(socket_path(os.environ, os.getuid()))
        self._say(bytes([MAGIC]), [[HELLO, VERSION, "agentctl"], [tag, _CID, *fields]])
        while True:
            for message in unpack(self._read(int.from_bytes(self._read(4), "little"))):
                if message[0] == answer:
                    return list(message[2:])
                if message[0] == ERROR:
                    raise ValueError(message[2])

    def leave(self) -> None:
        """What was asked for has been used."""
        self._say(b"", [[LEAVE, _CID]])

    def _say(self, before: bytes, messages: list[list[Any]]) -> None:
        data = pack(messages)
        self._hurry()
        self._socket.sendall(before + len(data).to_bytes(4, "little") + data)

    def _read(self, size_bytes: int) -> bytes:
        if size_bytes > _MOST_BYTES:
            raise ValueError("too long")
        data = b""
        while len(data) < size_bytes:
            self._hurry()
            piece = self._socket.recv(size_bytes - len(data))
            if not piece:
                raise ValueError("the daemon is gone")
            data += piece
        return data

    def _hurry(self) -> None:
        left_s = self._until - monotonic()
        if left_s <= 0:
            raise TimeoutError
        self._socket.settimeout(left_s)


def pack(value: Any) -> bytes:
    """msgpack of what verbs are made of."""
    if value is None:
        return b"\xc0"
    if isinstance(value, int):
        return bytes([value]) if 0 <= value < 128 else b"\xcf" + value.to_bytes(8, "big")
    if isinstance(value, str):
        data = value.encode()
        return b"\xdb" + len(data).to_bytes(4, "big") + data
    return b"\xdd" + len(value).to_bytes(4, "big") + b"".join(map(pack, value))


def unpack(data: bytes) -> Any:
    """The value that these bytes are msgpack of; ValueError for what no answer has in it."""
    value, end = _unpack(data, 0)
    if end != len(data):
        raise ValueError("more than one value")
    return value


_WORDS = {0xC0: None, 0xC2: False, 0xC3: True}
#: How many bytes a number or a length has, by the byte before it.
_UNSIGNED = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
_TEXTS = {0xD9: 1, 0xDA: 2, 0xDB: 4}
_LISTS = {0xDC: 2, 0xDD: 4}


def _unpack(data: bytes, at: int) -> tuple[Any, int]:
    first = data[at]
    at += 1
    if first < 0x80:
        return first, at
    if first in _WORDS:
        return _WORDS[first], at
    if first == 0xCB:  # a time: nobody here needs it
        return None, at + 8
    if first in _UNSIGNED:
        end = at + _UNSIGNED[first]
        return int.from_bytes(data[at:end], "big"), end
    if 0xA0 <= first < 0xC0:
        size = first & 31
    elif first in _TEXTS:
        size, at = _length(data, at, _TEXTS[first])
    elif 0x90 <= first < 0xA0:
        return _list(data, at, first & 15)
    elif first in _LISTS:
        size, at = _length(data, at, _LISTS[first])
        return _list(data, at, size)
    else:
        raise ValueError(f"0x{first:02x}")
    return data[at : at + size].decode(), at + size


def _length(data: bytes, at: int, width: int) -> tuple[int, int]:
    return int.from_bytes(data[at : at + width], "big"), at + width


def _list(data: bytes, at: int, size: int) -> tuple[list[Any], int]:
    out = []
    for _ in range(size):
        value, at = _unpack(data, at)
        out.append(value)
    return out, at
