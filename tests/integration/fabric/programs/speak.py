"""Runs on some host: messages over TLS, as whoever the given certificate names.

usage: speak.py HOST PORT NAME CA_PEM [PEM]     NAME: what the other end's certificate must hold

In: a list of {"method", "path", "body"}. Out: a list of {"status", "body"} or {"error"}.
"""

import http.client
import json
import socket
import ssl
import sys

host, port, name, ca_file, *own = sys.argv[1:]
context = ssl.create_default_context(cafile=ca_file)
for pem in own:
    context.load_cert_chain(pem)
answers = []
for message in json.load(sys.stdin):
    try:
        with (
            socket.create_connection((host, int(port)), 5) as wire,
            context.wrap_socket(wire, server_hostname=name) as tls,
        ):
            connection = http.client.HTTPConnection(host)
            connection.sock = tls
            body = None if message.get("body") is None else json.dumps(message["body"])
            connection.request(message["method"], message["path"], body)
            answer = connection.getresponse()
            answers.append({"status": answer.status, "body": answer.read().decode()})
    except (OSError, http.client.HTTPException) as error:
        answers.append({"error": repr(error)})
json.dump(answers, sys.stdout)
