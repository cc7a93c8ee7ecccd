"""What stands between the job and its other sides, and misbehaves when it is told to."""

import json
import socket
import threading
import time
from collections import Counter
from contextlib import closing, suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import Any, ClassVar, Self

from cli.servers import LOOPBACK

THROTTLED = "ProvisionedThroughputExceededException"
EXPIRED = "ExpiredIteratorException"


class Pipe:
    """A TCP port in front of another one: passes bytes on, late if `delay` says so, or hangs up while `cut`."""

    def __init__(self, port: int) -> None:
        self._to = port
        self.delay = 0.0  # seconds for each piece that is passed on towards the server
        self.cut = False
        self.delayed = self.hung_up = 0
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def hang_up(self) -> None:
        """Cut what is open, and refuse what comes, until `cut` is False again."""
        self.cut = True
        for one in list(self._open):
            _close(one)

    def close(self) -> None:
        """Take no more connections and end those there are."""
        self._listener.close()
        self.hang_up()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.cut:
                    self.hung_up += 1
                    _close(client)
                    continue
                try:
                    server = socket.create_connection((LOOPBACK, self._to), timeout=5)
                except OSError:
                    self.hung_up += 1
                    _close(client)
                    continue
                server.settimeout(None)
                self._open |= {client, server}
                for source, sink, late in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._pass_on, args=(source, sink, late), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, late: bool) -> None:
        with suppress(OSError):
            while some := source.recv(1 << 16):
                if late and self.delay:
                    self.delayed += 1
                    time.sleep(self.delay)
                sink.sendall(some)
        for one in (source, sink):
            self._open.discard(one)
            _close(one)


def _close(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


class _Web:
    """An HTTP server on a free port of loopback, a thread for each connection."""

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                pass  # clients that are killed are what this is about

        self._server = Server((LOOPBACK, 0), handler)
        self.url = f"http://{LOOPBACK}:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class Handler(BaseHTTPRequestHandler):
    """Keeps connections open and says nothing on the screen."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm: ClassVar[bool] = True

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def log_message(self, *_: object) -> None:
        pass


def _in_terms_of_kinesalite(body: bytes) -> bytes:
    """Ask for what comes next as such: Flink asks by its clock, in milliseconds that kinesalite takes for seconds."""
    request = json.loads(body)
    if request["ShardIteratorType"] == "AT_TIMESTAMP":
        del request["Timestamp"]
        request["ShardIteratorType"] = "LATEST"
    return json.dumps(request).encode()


class FrontOfKinesis(_Web):
    """A Kinesis that passes calls on to another, or answers them with the trouble that real streams make."""

    def __init__(self, port: int, seed: int) -> None:
        self.rng = Random(seed)
        self.failing = 0.0  # the share of PutRecords' entries that are turned away, and of whole calls
        self.expiring = 0  # so many GetRecords to come meet an expired iterator
        self.made: Counter[str] = Counter()
        front = self

        class Kinesis(Handler):
            def do_POST(self) -> None:
                body, target = self.body(), self.headers["X-Amz-Target"].rpartition(".")[2]
                if target == "GetRecords" and front.expiring > 0:
                    front.expiring -= 1
                    return self._trouble(EXPIRED, "Iterator expired")
                if target == "PutRecords" and front.failing:
                    return self._put(body)
                if target == "GetShardIterator":
                    body = _in_terms_of_kinesalite(body)
                status, answer = self._pass_on(body)
                return self.answer(status, answer)

            def _put(self, body: bytes) -> None:
                if front.rng.random() < front.failing / 2:
                    return self._trouble(THROTTLED, "Rate exceeded")
                request = json.loads(body)
                turned_away = [front.rng.random() < front.failing for _ in request["Records"]]
                rest = [one for one, no in zip(request["Records"], turned_away, strict=True) if not no]
                answers = iter(())
                if rest:
                    status, answer = self._pass_on(json.dumps({**request, "Records": rest}).encode())
                    if status != 200:
                        return self.answer(status, answer)
                    answers = iter(json.loads(answer)["Records"])
                failed = {"ErrorCode": THROTTLED, "ErrorMessage": "Rate exceeded for shard"}
                records = [failed if no else next(answers) for no in turned_away]
                front.made["entries turned away"] += sum(turned_away)
                said = {"FailedRecordCount": sum(turned_away), "Records": records}
                return self.answer(200, json.dumps(said).encode(), Content_Type="application/x-amz-json-1.1")

            def _trouble(self, code: str, message: str) -> None:
                front.made[code] += 1
                said = json.dumps({"__type": code, "message": message}).encode()
                self.answer(400, said, Content_Type="application/x-amz-json-1.1", x_amzn_ErrorType=code)

            def _pass_on(self, body: bytes) -> tuple[int, bytes]:
                headers = {k: v for k, v in self.headers.items() if k.lower() not in ("content-length", "host")}
                with closing(HTTPConnection(LOOPBACK, port, timeout=30)) as kinesis:
                    kinesis.request("POST", self.path, body, headers)
                    answer = kinesis.getresponse()
                    return answer.status, answer.read()

        super().__init__(Kinesis)


class Geo(_Web):
    """An ipinfo.io that knows every address, unless it is `down`, `slow`, `limited` or talks `rubbish`."""

    SLOW = 10.0  # seconds

    def __init__(self) -> None:
        self.mood = "well"
        self.calls: Counter[str] = Counter()  # by the mood they met
        geo = self

        class IpInfo(Handler):
            def do_POST(self) -> None:
                addresses = json.loads(self.body())
                geo.calls[geo.mood] += 1
                match geo.mood:
                    case "down":
                        self.close_connection = True
                        return
                    case "limited":
                        self.answer(429, b"{}", Retry_After="2")
                        return
                    case "rubbish":
                        self.answer(200, b'{"8.8.8.8": [[[[' + b"\xff\x00" * 500)
                        return
                    case "slow":
                        time.sleep(geo.SLOW)
                places = {a: {"ip": a, "city": "Columbus", "region": "Ohio", "country": "US"} for a in addresses}
                self.answer(200, json.dumps(places).encode())

        super().__init__(IpInfo)
