"""Names, the programs and processes bound to them, and who waits: the registry of the IRM."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from ouroboros.control.messages import NAME_LENGTH, NameEntry, NameSecurity
from ouroboros.errors import BindError, NameError

POLICIES = ("round-robin", "spillover")


def check_name(text: str, what: str = "name") -> str:
    """Give the text back if it can be the name of something; else raise `NameError` saying what is wrong with it."""
    try:
        length = len(text.encode())
    except UnicodeEncodeError as error:
        raise NameError(f"the {what} {text!r} is not valid UTF-8: {error.reason}") from error
    if not text:
        raise NameError(f"the {what} is empty")
    if length > NAME_LENGTH:
        raise NameError(f"the {what} has {length} bytes in UTF-8; at most {NAME_LENGTH} are allowed")
    if not text.isprintable():
        raise NameError(f"the {what} {text!r} has control characters in it")
    return text


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
class Process:
    """A program that runs and talks to us."""

    pid: int
    uid: int
    program: str
    #: It runs as root or as the user of the node, and may manage it.
    trusted: bool
    names: set[str] = field(default_factory=set)
    #: (flow id, side) of every end it holds.
    ends: set[tuple[int, int]] = field(default_factory=set)
    #: Tokens of its waiting requests.
    waiting: set[int] = field(default_factory=set)
    #: It called accept at least once: a server, perhaps a busy one.
    accepts: bool = False
    #: It took at least one flow. A started program that dies before that is not started again.
    served: bool = False


@dataclass(slots=True, eq=False)
class Name:
    """A name and, in the order of arrival, the tokens of acceptors and allocators that wait for it."""

    text: str
    policy: str = "spillover"
    #: Files that protect its flows and are not in the security directory.
    security: NameSecurity | None = None
    programs: dict[str, Binding] = field(default_factory=dict)
    processes: set[int] = field(default_factory=set)
    #: Those of the processes that accept flows. Clients may be bound, too: by their program's name.
    servers: set[int] = field(default_factory=set)
    acceptors: dict[int, None] = field(default_factory=dict)
    allocators: dict[int, None] = field(default_factory=dict)
    #: Somebody asked for it to exist; otherwise it came with a process that accepted for it.
    lasting: bool = True

    def next_acceptor(self) -> int | None:
        """Who gets the next flow: the one that waited longest (round-robin) or the last that came (spillover)."""
        order = iter(self.acceptors) if self.policy == "round-robin" else reversed(self.acceptors)
        return next(order, None)

    @property
    def served(self) -> bool:
        """Whether somebody here accepts flows for it, or would be started to."""
        return bool(self.acceptors or self.servers or self.autostart())

    def autostart(self) -> Binding | None:
        """The program to start on demand: the one bound last."""
        return next((binding for binding in reversed(self.programs.values()) if binding.auto), None)

    def entry(self, layers: list[str]) -> NameEntry:
        return NameEntry(self.text, self.policy, sorted(self.programs), sorted(self.processes), layers)


class Registry:
    """Three relations that no order is imposed on: name and program, name and process, process and program."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.names: dict[str, Name] = {}
        self.processes: dict[int, Process] = {}
        self._names_of_program: dict[str, set[str]] = {}
        #: Names that do not last and have no process, the one longest without first.
        self._unused: dict[str, None] = {}

    def create(
        self, text: str, policy: str = "spillover", *, lasting: bool = True, security: NameSecurity | None = None
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
            name = self.names[text] = Name(text, policy, lasting=lasting)
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
            self.processes[pid].names.discard(text)
        for program in name.programs:
            self._names_of_program[program].discard(text)
        self._unused.pop(text, None)
        return self.names.pop(text)

    def find(self, text: str) -> Name:
        """The name of that text; raise `NameError` when there is none."""
        name = self.names.get(text)
        if name is None:
            raise NameError(f"there is no name {text!r} on this node; `irm name list` shows the names")
        return name

    def bind_process(self, process: Process, text: str, *, lasting: bool = True) -> Name:
        name = self.create(text, lasting=lasting)
        name.processes.add(process.pid)
        process.names.add(text)
        if process.accepts:
            name.servers.add(process.pid)
        self._unused.pop(text, None)
        return name

    def mark_server(self, process: Process) -> None:
        """A process accepts flows: a server from now on, also while it is busy."""
        if process.accepts:
            return
        process.accepts = True
        for text in process.names:
            self.names[text].servers.add(process.pid)

    def unbind_process(self, process: Process, text: str) -> Name:
        name = self.find(text)
        if process.pid not in name.processes:
            raise BindError(f"process {process.pid} ({process.program}) is not bound to {text!r}")
        process.names.discard(text)
        self._leave(name, process)
        return name

    def bind_program(self, binding: Binding, text: str) -> list[Process]:
        """Bind a program, and those of its processes that run already; returns those."""
        program = binding.path.rpartition("/")[2]
        check_name(program, "program name")
        name = self.create(text)
        name.programs.pop(program, None)
        name.programs[program] = binding
        self._names_of_program.setdefault(program, set()).add(text)
        running = [each for each in self.processes.values() if each.program == program and each.trusted]
        for process in running:
            self.bind_process(process, text)
        return running

    def unbind_program(self, program: str, text: str) -> None:
        """Processes that run stay bound: `unbind process` is for those."""
        if self.find(text).programs.pop(program, None) is None:
            raise BindError(f"program {program!r} is not bound to {text!r}; give its base name")
        self._names_of_program[program].discard(text)

    def add_process(self, pid: int, uid: int, program: str, *, trusted: bool = True) -> Process:
        process = self.processes[pid] = Process(pid, uid, program, trusted)
        # What a stranger calls itself does not make it a server of the owner's names.
        for text in self._names_of_program.get(program, ()) if trusted else ():
            self.bind_process(process, text)
        return process

    def remove_process(self, process: Process) -> None:
        del self.processes[process.pid]
        for text in process.names:
            self._leave(self.names[text], process)

    def _leave(self, name: Name, process: Process) -> None:
        name.processes.discard(process.pid)
        name.servers.discard(process.pid)
        if not name.lasting and not name.processes:
            self._unused[name.text] = None
