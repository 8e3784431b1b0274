"""What runs in the guest: takes requests from the host over a virtio port and answers them.

Started by the guest's init as `python -I -S agent.py PORT`. One request a line, as JSON with an `id`; one
answer a line with the same `id`. Each request is served by a child made by fork(2), so nothing that hangs in a
driver can hold the agent, functions start without a Python start of their own, and a request that is late is
answered `{"late": true}` while its child is killed or, in D state, left behind. The agent itself has one thread
and waits for nothing but poll(2). When the host hangs up it powers the guest off.

    run     words, input, environment        -> status, stdout, stderr
    call    source, name, arguments, paths   -> value, or error
    read    path                             -> text
    write   path, text
    start   words, log, environment          -> pid; goes on running, its output in the file `log`
    ended   pid                              -> status, null while it runs
    fetch   port, path                       -> status, text: an HTTP request to this guest

Nothing but the standard library, and little of it, but that once for all children.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from typing import Any

_ended: dict[int, int] = {}


def run(request: dict[str, Any]) -> dict[str, Any]:
    """A command to its end."""
    done = subprocess.run(
        request["words"],
        input=(request.get("input") or "").encode(),
        capture_output=True,
        env={**os.environ, **request.get("environment", {})},
        check=False,
    )
    output = {"stdout": done.stdout.decode(errors="replace"), "stderr": done.stderr.decode(errors="replace")}
    return {"status": done.returncode, **output}


def call(request: dict[str, Any]) -> dict[str, Any]:
    """A function of a test, from its source text."""
    sys.path[:0] = request["paths"]
    space: dict[str, Any] = {"__name__": "guest"}
    exec(compile(request["source"], request["name"], "exec"), space)
    return {"value": space[request["name"]](*request["arguments"])}


def read(request: dict[str, Any]) -> dict[str, Any]:
    """A file, by one open and as many reads as it takes."""
    with open(request["path"], "rb", buffering=0) as file:
        return {"text": b"".join(iter(lambda: file.read(1 << 20), b"")).decode(errors="replace")}


def write(request: dict[str, Any]) -> dict[str, Any]:
    """A text into a file, by one write(2) as attributes want it."""
    descriptor = os.open(request["path"], os.O_WRONLY | os.O_CREAT, 0o644)
    os.write(descriptor, request["text"].encode())
    return {}


def fetch(request: dict[str, Any]) -> dict[str, Any]:
    """An HTTP request; the connection's end is the body's."""
    with socket.create_connection(("127.0.0.1", request["port"]), 10.0) as connection:
        head = f"GET {request['path']} HTTP/1.0\r\nHost: localhost\r\nAccept: text/plain\r\n\r\n"
        connection.sendall(head.encode())
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    first, _, body = answer.partition(b"\r\n\r\n")
    return {"status": int(first.split(b" ", 2)[1]), "text": body.decode()}


_SERVED = {"run": run, "call": call, "read": read, "write": write, "fetch": fetch}


def start(request: dict[str, Any]) -> dict[str, Any]:
    """A command that goes on; in the agent itself, so that its end is seen."""
    with open(request["log"], "wb") as log:
        process = subprocess.Popen(
            request["words"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **request.get("environment", {})},
            start_new_session=True,
        )
    process.returncode = 0  # `reap` fetches its status, not this object
    return {"pid": process.pid}


def serve(request: dict[str, Any]) -> bytes:
    """Do what is asked for; what it raises is the answer."""
    try:
        answer = _SERVED[request["do"]](request)
    except BaseException as error:
        import traceback

        answer = {"error": f"{type(error).__name__}: {error}", "errno": getattr(error, "errno", None)}
        answer["trace"] = traceback.format_exc()
    return json.dumps(answer).encode()


class Served:
    """A request that is being served by a child: its end of a pipe, what came of it, when it is late."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.id = request["id"]
        self.late = time.monotonic() + request.get("seconds", 60.0)
        self.answer = b""
        self.pipe, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.setpgid(0, 0)
            rest = serve(request)
            while rest:
                rest = rest[os.write(writer, rest) :]
            os._exit(0)
        os.close(writer)

    def more(self) -> bool:
        """Take what the pipe has; False at its end."""
        data = os.read(self.pipe, 1 << 16)
        self.answer += data
        return bool(data)

    def abandon(self) -> None:
        """Kill it and what it started; what is in D state stays."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except OSError:
            os.kill(self.pid, signal.SIGKILL)


class Agent:
    """port: descriptor of the virtio port."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._input = b""
        self._running: dict[int, Served] = {}
        self._poll = select.poll()
        self._poll.register(port, select.POLLIN)

    def say(self, id_: object, answer: bytes) -> None:
        """Send a line. The port takes what fits."""
        rest = b'{"id": %s, "answer": %s}\n' % (json.dumps(id_).encode(), answer)
        while rest:
            rest = rest[os.write(self._port, rest) :]

    def run(self) -> None:
        """Serve until the host hangs up."""
        self.say(0, json.dumps({"uptime": time.clock_gettime(time.CLOCK_BOOTTIME)}).encode())
        while True:
            for descriptor, events in self._poll.poll(200):
                if descriptor != self._port:
                    self._from_child(self._running[descriptor])
                elif not (events & select.POLLIN and self._from_host()):
                    return
            for served in [served for served in self._running.values() if time.monotonic() > served.late]:
                served.abandon()
                self._end(served, b'{"late": true}')
            reap()

    def _from_host(self) -> bool:
        """Serve what the host asks for; False where it has hung up."""
        data = os.read(self._port, 1 << 16)
        self._input += data
        *lines, self._input = self._input.split(b"\n")
        for line in lines:
            request = json.loads(line)
            if request["do"] == "start":
                try:
                    self.say(request["id"], json.dumps(start(request)).encode())
                except OSError as error:
                    self.say(request["id"], json.dumps({"error": str(error)}).encode())
            elif request["do"] == "ended":
                self.say(request["id"], json.dumps({"status": _ended.get(request["pid"])}).encode())
            else:
                served = Served(request)
                self._running[served.pipe] = served
                self._poll.register(served.pipe, select.POLLIN)
        return bool(data)

    def _from_child(self, served: Served) -> None:
        if not served.more():
            self._end(served, served.answer or b'{"error": "the child ended without an answer"}')

    def _end(self, served: Served, answer: bytes) -> None:
        self._poll.unregister(served.pipe)
        del self._running[served.pipe]
        os.close(served.pipe)
        self.say(served.id, answer)


def reap() -> None:
    """Fetch the statuses of all children that ended."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _ended[pid] = os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    # A host that is not there reads as POLLHUP: the port's other end is connected before the guest starts.
    Agent(os.open(sys.argv[1], os.O_RDWR)).run()
