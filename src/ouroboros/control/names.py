"""Names, the programs and parties bound to them, and what waits: the registry of the IRM. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from ouroboros._arguments import as_name
from ouroboros.control.parties import IpcProcess, Party, Process
from ouroboros.errors import BindError, NameError
from ouroboros.layers.base import Ipcp
from ouroboros.layers.ordered import OrderedSet
from ouroboros.wire.control import FIRST_IPCP_ID, NameEntry, NameSecurity

#: The policy of a name for which none was chosen.
ROUND_ROBIN = "round-robin"
POLICIES = (ROUND_ROBIN, "spillover")


def check_name(text: str, what: str = "name") -> str:
    """Give the text back if it can be the name of something; else raise `NameError` saying what is wrong with it."""
    return as_name(text, what, NameError)


def check_path(path: str) -> None:
    """Raises `NameError` for what cannot be the path of a file that protects flows."""
    if not path.startswith("/") or "\0" in path or not path.isprintable():
        raise NameError(f"the path of a file that protects flows must be absolute, not {path!r}")


@dataclass(slots=True)
class Binding:
    """A program that serves a name. With `auto`, the node may start it."""

    path: str
    auto: bool = False
    args: list[str] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Name:
    """A name and, in the order of arrival, the tokens of acceptors and allocators that wait for it."""

    text: str
    policy: str = ROUND_ROBIN
    #: Files that protect its flows and are not in the security directory.
    security: NameSecurity | None = None
    programs: dict[str, Binding] = field(default_factory=dict)
    processes: set[int] = field(default_factory=set)
    #: The bound processes that accept flows for it. Clients may be bound, too: by the name of their program.
    servers: set[int] = field(default_factory=set)
    #: The processes that were bound one by one, by themselves or by hand, and so are about to accept.
    expected: set[int] = field(default_factory=set)
    #: It had a server once.
    was_served: bool = False
    acceptors: dict[int, None] = field(default_factory=dict)
    allocators: dict[int, None] = field(default_factory=dict)
    #: Somebody asked for it to exist; otherwise it came with a process that accepted for it.
    lasting: bool = True

    def next_acceptor(self) -> int | None:
        """The acceptor of the next flow: the one that waited longest (round-robin) or the last that came (spillover)."""
        return next(self.in_turn(), None)

    def in_turn(self) -> Iterator[int]:
        """The acceptors of the next flows, in order."""
        return iter(self.acceptors) if self.policy == ROUND_ROBIN else reversed(self.acceptors)

    @property
    def served(self) -> bool:
        """Whether somebody here accepts flows for it, or would be started to."""
        return bool(self.acceptors or self.servers or self.autostart())

    @property
    def deserted(self) -> bool:
        """Whether it was served, all that did have ended, and nobody is to come in their place."""
        return self.was_served and not (self.servers or self.expected or self.autostart())

    def autostart(self) -> Binding | None:
        """The program to start on demand: the one bound last."""
        return next((binding for binding in reversed(self.programs.values()) if binding.auto), None)

    def entry(self, layers: list[str]) -> NameEntry:
        # An IPC process that takes no flows serves nobody, whatever it is bound to.
        processes = sorted(pid for pid in self.processes if pid < FIRST_IPCP_ID or pid in self.servers)
        return NameEntry(self.text, self.policy, sorted(self.programs), processes, layers)


class Registry:
    """Three relations that no order is imposed on: name and program, name and process, process and program."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.names: dict[str, Name] = {}
        self.processes: dict[int, Process] = {}
        self.members: dict[int, IpcProcess] = {}
        #: Allocators that wait for a name to be made, by its text.
        self.wanted: dict[str, dict[int, None]] = {}
        #: Those of peers that have proven nothing.
        self._strangers: set[int] = set()
        self._names_of_program: dict[str, OrderedSet[str]] = {}
        #: Names that do not last and have no process, the one longest without first.
        self._unused: dict[str, None] = {}

    def create(
        self, text: str, policy: str = ROUND_ROBIN, *, lasting: bool = True, security: NameSecurity | None = None
    ) -> Name:
        """The name of that text, made if there is none. The policy of an existing one stays; `security`, as far as it is
        given, counts from now on.

        A name that is not `lasting` outlives its processes, but gives way to another when the node has its limit of names:
        programs that accept under ever new names must not fill it up.
        """
        check_name(text)
        if policy not in POLICIES:
            raise NameError(f"unknown load-balancing policy {policy!r}: choose {' or '.join(POLICIES)}")
        given = {field: path for field, path in msgspec.structs.asdict(security or NameSecurity()).items() if path}
        for path in given.values():
            check_path(path)
        name = self.names.get(text)
        if name is None:
            self._make_room()
            name = self.names[text] = Name(text, policy, lasting=lasting, allocators=self.wanted.pop(text, {}))
        elif lasting:
            name.lasting = True
            self._unused.pop(text, None)
        if given:
            name.security = msgspec.structs.replace(name.security or NameSecurity(), **given)
        return name

    def security_of(self, text: str) -> NameSecurity | None:
        """The files that protect flows to a name, where they are not in the security directory."""
        name = self.names.get(text)
        return None if name is None else name.security

    def _make_room(self) -> None:
        if len(self.names) < self._limit:
            return
        unused = next((text for text in self._unused if not self.names[text].allocators), None)
        if unused is None:
            raise NameError(f"the node has its limit of {self._limit} names; destroy one")
        self.destroy(unused)

    def destroy(self, text: str) -> Name:
        name = self.find(text)
        for pid in name.processes:
            party = self.party(pid)
            party.names.discard(text)
            party.accepts.discard(text)
        for program in name.programs:
            self._names_of_program[program].discard(text)
        self._unused.pop(text, None)
        return self.names.pop(text)

    def party(self, pid: int) -> Party:
        """The process with that number, or the IPC process. Raises `KeyError` when there is neither."""
        return self.members.get(pid) or self.processes[pid]

    def find(self, text: str) -> Name:
        """The name of that text; raise `NameError` when there is none."""
        name = self.names.get(text)
        if name is None:
            raise NameError(f"there is no name {text!r} on this node; `irm name list` shows the names")
        return name

    def enqueue(self, text: str, token: int, *, stranger: bool = False) -> None:
        """Let an allocator wait in the queue of a name, be the name there or not. A `stranger` is behind all others."""
        name = self.names.get(text)
        queue = self.wanted.setdefault(text, {}) if name is None else name.allocators
        queue[token] = None
        if stranger:
            self._strangers.add(token)
        elif self._strangers:
            for each in [each for each in queue if each in self._strangers]:
                queue[each] = queue.pop(each)

    def dequeue(self, text: str, token: int) -> None:
        """Take an allocator out of the queue of a name, if it is in it."""
        self._strangers.discard(token)
        name = self.names.get(text)
        if name is not None:
            name.allocators.pop(token, None)
        elif (queue := self.wanted.get(text)) is not None:
            queue.pop(token, None)
            if not queue:
                del self.wanted[text]

    def bind_process(self, process: Party, text: str, *, lasting: bool = True, expected: bool = True) -> Name:
        """`expected`: it is this process that was bound, not its program, and it is going to accept."""
        name = self.create(text, lasting=lasting)
        name.processes.add(process.pid)
        if expected:
            name.expected.add(process.pid)
        process.names.add(text)
        if None in process.accepts:
            self._add_server(name, process)
        self._unused.pop(text, None)
        return name

    def mark_server(self, process: Party, text: str | None) -> None:
        """A process accepts flows to that name, None for any of its names: a server from now on, also while it is busy."""
        if text in process.accepts:
            return
        process.accepts.add(text)
        for each in process.names if text is None else (text,):
            self._add_server(self.names[each], process)

    def _add_server(self, name: Name, process: Party) -> None:
        name.servers.add(process.pid)
        name.was_served = True

    def unbind_process(self, process: Party, text: str) -> Name:
        name = self.find(text)
        if process.pid not in name.processes:
            raise BindError(f"{process} is not bound to {text!r}")
        process.names.discard(text)
        process.accepts.discard(text)
        self._leave(name, process)
        return name

    def bind_program(self, binding: Binding, text: str) -> list[Process]:
        """Bind a program, and its processes that run already; returns the processes."""
        program = binding.path.rpartition("/")[2]
        check_name(program, "program name")
        name = self.create(text)
        name.programs.pop(program, None)
        name.programs[program] = binding
        self._names_of_program.setdefault(program, OrderedSet()).add(text)
        running = [each for each in self.processes.values() if each.program == program and each.trusted]
        for process in running:
            self.bind_process(process, text, expected=False)
        return running

    def unbind_program(self, program: str, text: str) -> None:
        """Processes that run stay bound: `unbind process` is for those."""
        if self.find(text).programs.pop(program, None) is None:
            raise BindError(f"program {program!r} is not bound to {text!r}; give its base name")
        self._names_of_program[program].discard(text)

    def add_process(self, pid: int, uid: int, program: str, *, trusted: bool = True) -> Process:
        process = self.processes[pid] = Process(pid=pid, uid=uid, program=program, trusted=trusted)
        # The program name of a stranger does not make it a server of the owner's names.
        for text in self._names_of_program.get(program, ()) if trusted else ():
            self.bind_process(process, text, expected=False)
        return process

    def add_member(self, ipcp: Ipcp) -> IpcProcess:
        member = self.members[ipcp.id] = IpcProcess.of(ipcp)
        return member

    def remove_process(self, party: Party) -> None:
        """It, or an IPC process, is gone. What it was bound to stays in its `names`."""
        self.processes.pop(party.pid, None)
        self.members.pop(party.pid, None)
        for text in party.names:
            self._leave(self.names[text], party)

    def _leave(self, name: Name, process: Party) -> None:
        name.processes.discard(process.pid)
        name.servers.discard(process.pid)
        name.expected.discard(process.pid)
        if not name.lasting and not name.processes:
            self._unused[name.text] = None
