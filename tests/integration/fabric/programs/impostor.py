"""Runs on the gateway's host in its place: speaks TLS with a certificate of another CA.

usage: impostor.py ADDRESS PEM CA_PEM FILE      (prints its port)

Answers every request with the certificate in CA_PEM, and writes all it was sent into FILE.
"""

import contextlib
import socket
import ssl
import sys
from pathlib import Path

address, pem, ca_file, file = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(pem)
answer = Path(ca_file).read_bytes()
head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-pem-file\r\nConnection: close\r\n"
with socket.create_server((address, 0)) as listener, Path(file).open("ab", buffering=0) as heard:
    print(listener.getsockname()[1], flush=True)  # noqa: T201 - for the test
    while True:
        guest, _ = listener.accept()
        with contextlib.suppress(OSError), context.wrap_socket(guest, server_side=True) as wire:
            wire.settimeout(1)
            with contextlib.suppress(TimeoutError):
                while piece := wire.recv(65_536):
                    heard.write(piece)
                    if b"\r\n\r\n" in piece:
                        break
            wire.sendall(head + b"Content-Length: %d\r\n\r\n" % len(answer) + answer)
