"""The control socket: takes programs in, reads what they ask, and sends the answers. It knows no names and no flows."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import logging
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ouroboros.control.parties import Process
from ouroboros.control.shares import PEERS, Kind, Shares
from ouroboros.errors import IpcpBootstrapError, NodeError, NodeLimitError, OuroborosError, ProtocolError
from ouroboros.runtime.journal import Journal
from ouroboros.runtime.paths import owner_socket_path, socket_path, using
from ouroboros.runtime.peers import credentials
from ouroboros.runtime.turns import REQUEST_LENGTH_OF_OTHERS, Caller, Queue, Users
from ouroboros.wire import control as messages
from ouroboros.wire.control import (
    Answer,
    Dealloc,
    Done,
    Failed,
    Hello,
    ListFlows,
    ListIpcps,
    ListNames,
    Request,
)

#: Seconds that a new connection may take to say hello: as many as a client waits for the answer. On a machine that is
#: busy, a thousand programs that connect at once take some.
HELLO_TIME = 30.0
#: Connections that are accepted before others get their turn.
ACCEPTS_A_TURN = 32
#: Connections of the owner that are served in a turn, and messages of each. Of all other users together, one connection
#: after the other has a message served, a few in a turn: however much they ask for, the owner waits for no more than that.
CALLERS_A_TURN, MESSAGES_A_TURN, MESSAGES_OF_OTHERS_A_TURN = 32, 4, 8
#: Connections of a process that ended that are closed in a turn.
PARTS_A_TURN = 16
#: Seconds of the processor after which a turn of them is over, with the message that is being served.
TIME_OF_OTHERS_A_TURN = 0.001
#: Seconds after a message of the owner in which others have a quarter of the node's time, and three for the owner.
OWNER_TIME, OWNER_PART = 1.0, 3
#: Bytes that the kernel keeps of answers on a connection of another user. More wait in the node, and are counted.
_SEND_BUFFER_OF_OTHERS = 8192
_LONG_ANSWERS = (ListNames, ListIpcps, ListFlows)
#: Bytes of an answer that is sent to another user without a look at what he has not read.
_SHORT_ANSWER = 2048
#: Whether a socket takes descriptors that come with what is sent to it; Linux 6.16 and later. To drop one can take as long
#: as whoever sent it likes, as with a socket that lingers.
_SO_PASSRIGHTS = 83


class Service(Protocol):
    """The services for callers."""

    def introduce(self, caller: Caller, hello: Hello) -> None:
        """Find out which process it is. Raises `OuroborosError` or `OSError` for one that is not let in."""

    def ask(self, caller: Caller, process: Process, request: Request) -> None:
        """Take a request. Its answer needs a token, see `Callers.expect`. Raises `NodeLimitError` when the user of the
        caller must not have that now."""

    def hung_up(self, caller: Caller) -> None:
        """The connection is over, and the request that is under way with it."""


class Callers:
    """The connections of a node. Each says hello first, and then asks one thing at a time."""

    def __init__(self, service: Service, shares: Shares, journal: Journal, trusts: Callable[[int], bool]) -> None:
        self._service = service
        self._shares = shares
        self._journal = journal
        self._trusts = trusts
        self._open: set[Caller] = set()
        self._of_process: dict[Process, set[Caller]] = {}
        self._owner, self._users = Queue(), Users()
        #: Callers that wait for an answer, by the token of their request. Each request has a token of its own.
        self._asking: dict[int, Caller] = {}
        self._next_token = 1
        self._listeners: list[socket.socket] = []
        self._owner_came = -OWNER_TIME
        #: A spare descriptor, for turning a program away when there are no others.
        self._reserve: int | None = None

    def __len__(self) -> int:
        """Connections that are open."""
        return len(self._open)

    # --- answers

    def new_token(self) -> int:
        """A token that no other request has."""
        token, self._next_token = self._next_token, self._next_token + 1
        return token

    def expect(self, caller: Caller) -> int:
        """From now on the caller waits; the answer finds it by the token."""
        caller.token = self.new_token()
        self._asking[caller.token] = caller
        return caller.token

    def answer(
        self,
        token: int,
        message: Answer,
        descriptors: tuple[int, ...] = (),
        undelivered: Callable[[], None] | None = None,
    ) -> bool:
        """Whether somebody waits under the token. `undelivered` is called when the caller hangs up without another word."""
        caller = self._asking.get(token)
        if caller is None:
            return False
        if undelivered is not None:
            caller.undelivered = undelivered
        self._send(caller, message, descriptors)
        return True

    def user(self, token: int) -> int:
        """Who waits under the token."""
        caller = self._asking.get(token)
        return PEERS if caller is None else caller.user

    def forget(self, process: Process) -> None:
        """Hang up on a process that is over. What it was sent is not taken back for that: it ends with the process."""
        over = self._of_process.pop(process, set())
        for caller in over:
            # Nothing that it says is read any more.
            caller.ended, caller.undelivered = True, None
        self._part_some(list(over))

    def _part_some(self, over: list[Caller]) -> None:
        """A few a turn: others do not wait for hundreds."""
        for caller in over[:PARTS_A_TURN]:
            self._part(caller)
        if over := over[PARTS_A_TURN:]:
            self._loop.call_soon(self._part_some, over)

    # --- from listening to the end

    def listen(self, listener: socket.socket, for_owner: socket.socket | None) -> None:
        """`for_owner`: by which the owner comes, if not by the other one."""
        self._loop = asyncio.get_running_loop()
        self._reserve = _spare()
        for each in (listener,) if for_owner is None else (for_owner, listener):
            with contextlib.suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, _SO_PASSRIGHTS, 0)
            self._listeners.append(each)
            is_shared = for_owner is not None and each is listener
            self._loop.add_reader(each, self._accept_others if is_shared else self._accept, each)
        self._loop.add_reader(self._owner, self._serve_owner)
        self._loop.add_reader(self._users, self._serve_users)

    def stop_listening(self) -> None:
        """No error when `listen` was not called."""
        while self._listeners:
            self._loop.remove_reader(self._listeners.pop())

    def shut_down(self) -> None:
        for caller in list(self._open):
            if caller.token:
                self._send(caller, Failed("NodeError", "the node is shutting down"))
            # A flow that was given out lives on without us.
            self._part(caller)
        if self._reserve is not None:
            os.close(self._reserve)
            for queue in (self._owner, self._users):
                self._loop.remove_reader(queue)
        self._owner.close()
        self._users.close()

    def _accept_others(self, listener: socket.socket) -> None:
        begin = time.thread_time()
        self._accept(listener)
        self._rest(listener, time.thread_time() - begin, functools.partial(self._accept_others, listener))

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS_A_TURN):
            try:
                sock, _ = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                self._turn_away(listener, error)
                return
            sock.setblocking(False)
            _, user = credentials(sock)
            try:
                self._shares.take(Kind.CONNECTIONS, user)
            except NodeLimitError as error:
                self._refuse_entry(sock, user, error)
                continue
            try:
                self._let_in(sock, user)
            except OSError as error:
                self._shares.give_back(Kind.CONNECTIONS, user)
                self._users.left(user)
                self._refuse_entry(sock, user, _no_room(error))

    def _let_in(self, sock: socket.socket, user: int) -> None:
        trusted = self._trusts(user)
        if not trusted:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_OF_OTHERS)
        caller = Caller(sock, user, self._owner if trusted else self._users.queue(user), trusted=trusted)
        caller.queue.add(caller)
        self._open.add(caller)
        caller.hello_timer = self._loop.call_later(HELLO_TIME, self._hang_up, caller, "said no hello")

    def _refuse_entry(self, sock: socket.socket, user: int, error: NodeError) -> None:
        """It hears why, in answer to its hello."""
        self._journal.write(user, f"a program was turned away: {error}")
        with sock, contextlib.suppress(OSError):
            sock.send(messages.encode(Failed(type(error).__name__, str(error))))
            sock.recv(REQUEST_LENGTH_OF_OTHERS)

    def _turn_away(self, listener: socket.socket, error: OSError) -> None:
        """Out of descriptors: take the caller's connection with the spare one and close it, so that it does not hang."""
        self._journal.write(PEERS, f"a program was turned away: {error}")
        assert self._reserve is not None
        os.close(self._reserve)
        try:
            listener.accept()[0].close()
        except OSError as again:
            if again.errno != errno.EAGAIN:
                self._journal.write(PEERS, f"nor could it be told: {again}")
        self._reserve = _spare()

    # --- what callers say

    def _serve_owner(self) -> None:
        self._owner_came = self._loop.time()
        for caller in self._owner.ready(CALLERS_A_TURN):
            self._serve(caller, MESSAGES_A_TURN)

    def _serve_users(self) -> None:
        begin, spent = time.thread_time(), 0.0
        for _ in range(MESSAGES_OF_OTHERS_A_TURN):
            for caller in self._users.ready():
                self._serve(caller, 1)
            if (spent := time.thread_time() - begin) > TIME_OF_OTHERS_A_TURN:
                break
        self._rest(self._users, spent, self._serve_users)

    def _rest(self, what: Users | socket.socket, spent: float, serve: Callable[[], None]) -> None:
        """What others had is over for now. When the owner wants something, it has three times as long: else the kernel, too,
        would keep a node waiting that others keep busy."""

        def go_on() -> None:
            if self._listeners:
                self._loop.add_reader(what, serve)

        if self._loop.time() - self._owner_came < OWNER_TIME:
            self._loop.remove_reader(what)
            self._loop.call_later(OWNER_PART * spent, go_on)

    def _serve(self, caller: Caller, most: int) -> None:
        try:
            if caller.out:
                self._flush(caller)
            while most and self._is_read(caller) and (body := caller.read()) is not None:
                # A sign of life, which takes what went out before.
                caller.undelivered = None
                # Else nothing more comes, as a rule, before that is answered.
                most = most - 1 if self._receive(caller, body) else 0
            if caller.ended:
                self._hang_up(caller, None)
        except OSError as error:
            self._hang_up(caller, f"failed: {error}")
        except ProtocolError as error:
            self._refuse(caller, error)
        except Exception as error:  # noqa: BLE001 - a bug of ours: whoever waits must hear of it, and the node goes on
            text = f"a request of {caller.process} met a bug of the node"
            self._journal.write(caller.user, text, level=logging.ERROR, bug=error)
            self._refuse(caller, NodeError(f"bug in the node: {error!r}; please report it"))

    def _is_read(self, caller: Caller) -> bool:
        """Whoever does not read is not read, so that nobody makes the node keep more than one answer for a connection."""
        return caller in self._open and not caller.out and not caller.ended

    def _receive(self, caller: Caller, body: bytes) -> bool:
        """Whether it is a message behind which others come at once."""
        request: Request | IpcpBootstrapError
        try:
            request = messages.decode_request(body)
        except IpcpBootstrapError as error:
            # A request like any other, but for a value in it.
            request = error
        if isinstance(request, Hello):
            self._welcome(caller, request)
        elif caller.process is None:
            raise ProtocolError("the first message must be a Hello")
        elif caller.token:
            raise ProtocolError("a second request came before the first was answered")
        elif isinstance(request, IpcpBootstrapError):
            self._send(caller, Failed(type(request).__name__, str(request)))
        else:
            try:
                if isinstance(request, _LONG_ANSWERS):
                    # Not computed in vain.
                    self._shares.check(Kind.ANSWERS, caller.user, _SHORT_ANSWER)
                self._service.ask(caller, caller.process, request)
            except NodeLimitError as error:
                self._send(caller, Failed(type(error).__name__, str(error)))
        return isinstance(request, Hello | Dealloc)

    def _welcome(self, caller: Caller, hello: Hello) -> None:
        if hello.version != messages.VERSION:
            raise ProtocolError(
                f"this node speaks version {messages.VERSION} of the control protocol, the program {hello.version}: "
                "update the older of the two"
            )
        if caller.process is not None:
            raise ProtocolError("a second Hello on one connection")
        try:
            self._service.introduce(caller, hello)
        except (OuroborosError, OSError) as error:
            self._refuse(caller, error if isinstance(error, OuroborosError) else _no_room(error))
            return
        self._note_process(caller)
        if caller.hello_timer is not None:
            caller.hello_timer.cancel()
        self._send(caller, Done(None))

    def _note_process(self, caller: Caller) -> None:
        if caller.process is not None:
            self._of_process.setdefault(caller.process, set()).add(caller)

    # --- what they hear

    def _refuse(self, caller: Caller, error: OuroborosError) -> None:
        token = caller.token
        self._send(caller, Failed(type(error).__name__, str(error)))
        caller.drain()
        # This answers what broke the rules. A request that is under way ends as those of callers that hang up.
        caller.token = token
        self._hang_up(caller, str(error))

    def _part(self, caller: Caller) -> None:
        caller.undelivered = None
        self._hang_up(caller, None)

    def _hang_up(self, caller: Caller, why: str | None) -> None:
        if caller not in self._open:
            return
        self._open.discard(caller)
        if why is not None:
            self._journal.write(caller.user, f"connection of {caller.process or 'a stranger'} closed: {why}")
        if caller.hello_timer is not None:
            caller.hello_timer.cancel()
        caller.queue.remove(caller)
        caller.sock.close()
        self._shares.give_back(Kind.CONNECTIONS, caller.user)
        self._keep(caller, 0)
        if not caller.trusted:
            self._users.left(caller.user)
        if caller.process is not None and (others := self._of_process.get(caller.process)) is not None:
            others.discard(caller)
            if not others:
                del self._of_process[caller.process]
        self._asking.pop(caller.token, None)
        if caller.undelivered is not None:
            caller.undelivered()
        self._service.hung_up(caller)

    def _send(self, caller: Caller, message: Answer, descriptors: tuple[int, ...] = ()) -> None:
        # First: while it fails the request is under way, and somebody can still be told.
        data = messages.encode(message)
        self._asking.pop(caller.token, None)
        caller.token = 0
        try:
            if len(data) > _SHORT_ANSWER:
                # Whatever of it the program reads at once: it may read nothing.
                try:
                    self._keep(caller, len(data))
                except NodeLimitError as error:
                    data = messages.encode(Failed(type(error).__name__, str(error)))
            caller.send(data, descriptors)
            self._keep(caller, len(caller.out))
        except (BlockingIOError, NodeLimitError) as error:
            why = error if isinstance(error, NodeLimitError) else "its socket is full"
            # Not now: whoever answers may have more to say, and finds that nobody waits.
            caller.out.clear()
            caller.ended = True
            self._loop.call_soon(self._hang_up, caller, f"it does not read its answers: {why}")
            return
        if caller.out:
            caller.queue.watch(caller)

    def _keep(self, caller: Caller, amount: int) -> None:
        """So many bytes are kept for it. Raises `NodeLimitError` when its user has too many that were not read."""
        if caller.trusted or amount == caller.kept:
            return
        if amount > caller.kept:
            self._shares.take(Kind.ANSWERS, caller.user, amount - caller.kept)
        else:
            self._shares.give_back(Kind.ANSWERS, caller.user, caller.kept - amount)
        caller.kept = amount

    def _flush(self, caller: Caller) -> None:
        caller.flush()
        self._keep(caller, len(caller.out))
        if not caller.out:
            caller.queue.watch(caller)


def open_socket(directory: Path) -> socket.socket:
    """The control socket of the node in that directory, whose lock the caller holds."""
    return _open(directory, socket_path(directory), 0o666 if os.geteuid() == 0 else 0o600)


def open_owner_socket(directory: Path) -> socket.socket | None:
    """The second one, of a node of root."""
    return _open(directory, owner_socket_path(directory), 0o600) if os.geteuid() == 0 else None


def _open(directory: Path, path: str, mode: int) -> socket.socket:
    # We hold the lock, so a socket that is there belongs to a node that died.
    with using(directory):
        Path(path).unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        listener.bind(path)
        os.chmod(path, mode)
    listener.listen(4096)
    return listener


def _spare() -> int:
    return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)


def _no_room(error: OSError) -> NodeError:
    return NodeLimitError(
        f"the node cannot take in one more program: {error.strerror}; end programs, or raise its limit (`ulimit -n`)"
    )
