"""TLS in front of a server that has none: what the Redis of the tests lacks and the one on AWS insists on."""

import select
import socket
import ssl
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self

from cli.servers import LOOPBACK
from tests.servers import make_certificate


class TlsFront:
    """Listens with a certificate of its own (`ca`) and passes on to a port in clear."""

    def __init__(self, folder: Path, behind: int) -> None:
        self.ca, key = folder / "front.pem", folder / "front.key"
        make_certificate(self.ca, key)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(self.ca, key)
        self._behind = behind
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        self.handshakes = 0

    def __enter__(self) -> Self:
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with (
            suppress(OSError),
            client,
            socket.create_connection((LOOPBACK, self._behind)) as server,
            self._context.wrap_socket(client, server_side=True) as secured,
        ):
            self.handshakes += 1
            while True:  # by one thread, as OpenSSL wants it
                ready = [secured] if secured.pending() else select.select([secured, server], [], [])[0]
                for source, sink in ((secured, server), (server, secured)):
                    if source in ready:
                        data = source.recv(65_536)
                        if not data:
                            return
                        sink.sendall(data)
