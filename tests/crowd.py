"""A process with connections, made to be killed. It speaks the JSON face with nothing but the standard library, so that
many of it start quickly: `python -I -S crowd.py SOCKET COUNT PREFIX [LINE...]` opens COUNT connections, joins each as
PREFIX<number> (PREFIX "-": without a name), says the LINEs on each, waits until they are handled, prints "ready", and
sleeps.
A word `fork` before the LINEs makes it fork a child that keeps the connections open, and print its pid."""

import os
import signal
import socket
import sys


def main() -> None:
    path, count, prefix, *lines = sys.argv[1:]
    fork = lines[:1] == ["fork"]
    lines = lines[fork:]
    opened = []
    for number in range(int(count)):
        one = socket.socket(socket.AF_UNIX)
        one.connect(path)
        join = (
            '{"verb":"join","cid":1}'
            if prefix == "-"
            else f'{{"verb":"join","cid":1,"name":"{prefix}{number}","take":true}}'
        )
        said = ['{"verb":"hello","version":1,"client":"crowd"}', join, *lines, '{"verb":"status","cid":999}']
        one.sendall("".join(line + "\n" for line in said).encode())
        opened.append((one, one.makefile("rb")))
    for _, reader in opened:
        for line in reader:
            if b'"error"' in line:
                sys.exit(line.decode())
            if b'"cid":999,' in line:
                break
    if fork:
        child = os.fork()
        if not child:
            os.setsid()  # not for the signals of whoever ends its parent
            signal.pause()
        print(child, flush=True)
    print("ready", flush=True)
    signal.pause()


main()
