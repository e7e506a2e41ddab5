"""Runs on the switch: writes every frame of one port into a file until it is killed.

usage: listen_in.py PORT FILE      (prints a line once it listens)
"""

import socket
import sys

ETH_P_ALL = 3  # linux/if_ether.h
with (
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as wire,
    open(sys.argv[2], "wb", buffering=0) as file,  # noqa: PTH123 - nothing but a file
):
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024 * 1024)
    wire.bind((sys.argv[1], ETH_P_ALL))
    print("listens", flush=True)  # noqa: T201 - for the test
    while True:
        file.write(wire.recv(65_535))
