"""A mock host served by FUSE, in a process of its own: `python -m gpudaemon.mock.host DIR --profile mi300x8`.

Prints one line `ready DIR` when the tree is mounted and ends cleanly at SIGTERM or SIGINT: unmounted lazily,
with every waiting read answered. Exit status 0, 1 where it cannot mount, 2 for wrong arguments.
"""

import argparse
import contextlib
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable

from gpudaemon.errors import GpudaemonError
from gpudaemon.mock.agenda import Agenda
from gpudaemon.mock.clock import LiveClock
from gpudaemon.mock.commands import Commands
from gpudaemon.mock.device_commands import Datagrams, DeviceCommands
from gpudaemon.mock.fuse import Connection
from gpudaemon.mock.live import Fault, LiveTree, Node
from gpudaemon.mock.mount import mount, unmount
from gpudaemon.mock.netlink import NETLINK, Netlink
from gpudaemon.mock.profiles import profiles
from gpudaemon.mock.scenario import Scenario, read
from gpudaemon.mock.server import Server
from gpudaemon.mock.tree import File, Tree
from gpudaemon.mock.workload import WORKLOADS

__all__ = ["Host", "add_arguments", "main", "serve"]

_KEEP_UP = 10.0  # seconds within which every model is brought up to now
_START = 10.0  # seconds a kernel has for INIT and the interrupted read, which take milliseconds


class Host:
    """A mounted tree and its event loop.

    control: path of a UNIX socket, or None. uevents: path of another, or NETLINK for a network namespace of the
    host's own, or None. scenario: what happens from the start on. life: a descriptor whose end of file ends the
    host too.
    """

    def __init__(
        self,
        tree: Tree,
        directory: str,
        *,
        control: str | None = None,
        uevents: str | None = None,
        scenario: Scenario | None = None,
        life: int | None = None,
    ) -> None:
        self._directory = directory
        self._control = control
        self._life = life
        self._tree = LiveTree(tree)
        self._clock = LiveClock()
        self._agenda = Agenda()
        self._frozen = False
        self._models = list(tree.gpus.values())
        self._epoll = select.epoll()
        self._clients: dict[int, tuple[socket.socket, bytearray]] = {}
        self._listener: socket.socket | None = None
        self._stopping = False
        # A signal that arrives just before epoll must wake it.
        self._wake, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        self._connection = Connection(mount(directory))
        self._server = Server(self._connection, self._tree, self._clock, int(time.time()))
        carry = Netlink() if uevents == NETLINK else Datagrams(uevents)
        devices = DeviceCommands(self._tree, self._clock, self._agenda, carry=carry, sleep=self._freeze)
        self._commands = Commands(self._tree, self._server, self._clock, self._agenda, devices.commands())
        self._scenario = scenario

    def _freeze(self, seconds: float) -> None:
        """Let the file system stand still: requests stay where they are, and so do delayed answers."""
        self._frozen = True
        self._epoll.unregister(self._connection.descriptor)
        self._agenda.after(seconds, self._thaw)

    def _thaw(self) -> None:
        self._frozen = False
        self._epoll.register(self._connection.descriptor, select.EPOLLIN)

    def run(self) -> None:
        """Serve until a signal or an unmount. Raises GpudaemonError where the kernel does not play along."""
        try:
            self._epoll.register(self._connection.descriptor, select.EPOLLIN)
            self._epoll.register(self._wake.fileno(), select.EPOLLIN)
            signal.set_wakeup_fd(self._waker.fileno())
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._stop)
            if self._life is not None:
                self._epoll.register(self._life, select.EPOLLIN)
            self._refuse_interrupts()
            if self._control is not None:
                self._listen(self._control)
            self._keep_up()
            if self._scenario is not None:
                self._commands.follow(self._scenario)
            print(f"ready {self._directory}", flush=True)
            while not (self._stopping or self._server.ended):
                self._turn(self._timeout())
        finally:
            self._close()

    def _keep_up(self) -> None:
        """Compute the models' states now and then, one model at a time, so that a late reader need not wait."""
        if self._models:
            self._models[0].at(self._clock())
            self._models.append(self._models.pop(0))
            self._agenda.after(_KEEP_UP / len(self._models), self._keep_up)

    def _stop(self, _number: int, _frame: object) -> None:
        self._stopping = True

    def _turn(self, timeout: float | None) -> None:
        """Wait for something to do, at most `timeout` seconds, and do it."""
        for descriptor, _ in self._epoll.poll(timeout):
            if descriptor == self._connection.descriptor:
                self._server.pump()
            elif self._listener is not None and descriptor == self._listener.fileno():
                self._accept(self._listener)
            elif descriptor in self._clients:
                self._client(descriptor)
            elif descriptor == self._life:
                self._stopping |= not os.read(descriptor, 4096)
            else:
                self._wake.recv(64)
        self._agenda.run_due()
        if not self._frozen:
            self._server.answer_due()

    def _timeout(self) -> float | None:
        """Seconds until something is due, None for never."""
        moments = (self._agenda.timeout(), None if self._frozen else self._server.timeout())
        return min((moment for moment in moments if moment is not None), default=None)

    def _refuse_interrupts(self) -> None:
        """Make the kernel send one FUSE_INTERRUPT and refuse it, so that readers wait in D state from then on.

        The interrupted reader is a child: a signal must find a process in the middle of a read, and this one
        answers it.
        """
        node = Node(len(self._tree.nodes) + 1, ".interrupt", File(), fault=Fault(hang=True))
        self._tree.nodes[node.number] = node
        self._tree.root.children[b".interrupt"] = node
        child = os.fork()
        if child == 0:
            try:
                # With our descriptor of /dev/fuse, its own read would keep the mount alive without us.
                self._connection.close()
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGUSR1, lambda _number, _frame: None)
                os.read(os.open(os.path.join(self._directory, ".interrupt"), os.O_RDONLY), 1)
            finally:
                os._exit(0)
        deadline = time.monotonic() + _START
        self._until(lambda: self._server.waits_for(node), deadline)
        os.kill(child, signal.SIGUSR1)
        self._until(lambda: self._server.interrupts > 0, deadline)
        self._server.release([node])
        node.fault = None
        self._until(lambda: os.waitpid(child, os.WNOHANG)[0] == child, deadline)
        del self._tree.root.children[b".interrupt"]

    def _until(self, done: Callable[[], bool], deadline: float) -> None:
        while not done():
            if time.monotonic() > deadline or self._server.ended:
                raise GpudaemonError(f"the kernel does not use the FUSE mount at {self._directory} as expected")
            self._turn(0.01)

    def _listen(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        self._listener.listen()
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)

    def _accept(self, listener: socket.socket) -> None:
        client, _ = listener.accept()
        client.settimeout(1.0)  # a client that does not take its answer is dropped
        self._clients[client.fileno()] = (client, bytearray())
        self._epoll.register(client.fileno(), select.EPOLLIN)

    def _client(self, descriptor: int) -> None:
        client, buffer = self._clients[descriptor]
        try:
            part = client.recv(1 << 16)
            buffer += part
            while b"\n" in buffer:
                line, _, rest = bytes(buffer).partition(b"\n")
                buffer[:] = rest
                client.sendall(self._commands.line(line))
        except OSError:
            part = b""
        if not part:
            self._epoll.unregister(descriptor)
            del self._clients[descriptor]
            client.close()

    def _close(self) -> None:
        signal.set_wakeup_fd(-1)
        # First the name goes, so that nobody comes in any more; then whoever waits is let out.
        unmount(self._directory)
        self._server.abort()
        self._connection.close()
        for client, _ in self._clients.values():
            client.close()
        if self._listener is not None and self._control is not None:
            self._listener.close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._control)
        self._epoll.close()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of a live host, but for where its sockets are."""
    parser.add_argument("--gpus", type=int, metavar="N", help="number of GPUs, where there is a choice")
    parser.add_argument("--seed", type=int, metavar="N", help="another one gives other motion (0)")
    parser.add_argument("--workload", metavar="NAME", help=f"of every GPU: {', '.join(WORKLOADS)}")
    parser.add_argument("--scenario", metavar="FILE", help="what happens, and when")
    parser.add_argument("--until-eof", action="store_true", help="end when standard input ends")


def serve(options: argparse.Namespace, profile: str | None, good: Callable[[], None] = lambda: None) -> None:
    """Serve the host that the options of `add_arguments` name until it is told to end.

    profile: None for that of the scenario, else mi300x8. good: called when all that was asked for can
    be, before anything is mounted. Raises GpudaemonError.
    """
    scenario = read(options.scenario) if options.scenario else None
    wanted = dict(scenario.host) if scenario else {}
    given = {name: getattr(options, name) for name in ("gpus", "seed", "workload")}
    wanted |= {name: value for name, value in given.items() if value is not None}
    name = profile or wanted.get("profile", "mi300x8")
    known = profiles()
    if name not in known:
        raise GpudaemonError(f"no profile {name!r}: there are {', '.join(known)}")
    try:
        tree = known[name].tree(wanted.get("gpus"), seed=wanted.get("seed", 0), workload=wanted.get("workload"))
    except ValueError as error:
        raise GpudaemonError(str(error)) from error
    good()
    Host(
        tree,
        os.path.abspath(options.directory),
        control=options.control,
        uevents=options.uevents,
        scenario=scenario,
        life=sys.stdin.fileno() if options.until_eof else None,
    ).run()


def main(arguments: list[str] | None = None) -> int:
    """Command line of the process; returns the exit status."""
    parser = argparse.ArgumentParser(prog="gpudaemon.mock.host", description="serve a mock GPU host by FUSE")
    parser.add_argument("directory", metavar="DIR", help="an existing directory; sys and proc appear below it")
    parser.add_argument("--profile", help="`gpudaemon mock profiles` lists them")
    parser.add_argument("--control", metavar="SOCKET", help="make a control socket here")
    parser.add_argument("--uevents", metavar="SOCKET", help="send uevents there, or `netlink`")
    add_arguments(parser)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    try:
        serve(options, options.profile)
    except GpudaemonError as error:
        print(f"gpudaemon.mock.host: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
