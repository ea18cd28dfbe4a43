"""The flows of a node: makes the channels of programs, gives them to the engine where it carries the packets, and grants the
ends. Carries out effects."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from typing import Any, Protocol

from ouroboros.control.irm import Irm
from ouroboros.control.security import shown
from ouroboros.dataplane import MAX_PACKET, create_channel, mark_dead
from ouroboros.layers.effects import Attach, Connect, Effect, Join, Loop, MarkDead, Member, Release, User
from ouroboros.runtime.engine import EngineRuntime
from ouroboros.runtime.held import Program
from ouroboros.wire.control import Granted
from ouroboros.wire.suites import CIPHER_BY_NUMBER

log = logging.getLogger("ouroboros.irmd")


class Channel:
    """The memory of a flow of a program, and the doorbells of its two sides. To be closed."""

    def __init__(self) -> None:
        """Raises `OSError`."""
        self.memory, *self.bells = create_channel()

    def engine(self, side: int) -> Program:
        """The engine as the peer of the program at a side."""
        return self.memory, self.bells[1 - side], 1 - side

    def close_bells(self) -> None:
        while self.bells:
            os.close(self.bells.pop())

    def close(self) -> None:
        self.close_bells()
        os.close(self.memory)


class Giver(Protocol):
    """Answers requests for flows, by their tokens."""

    def grant(self, token: int, granted: Granted, channel: Channel) -> None:
        """Give a program its end. The channel stays the caller's."""

    def fail_flow(self, flow_id: int, side: int, token: int, error: OSError) -> None:
        """Say that an end could not be made."""


class FlowRuntime:
    """Channels of one node."""

    def __init__(
        self,
        irm: Irm,
        grants: Giver,
        engine: EngineRuntime,
        make_channel: Callable[[], Channel] = Channel,
        warn: Callable[[str], None] = log.warning,
    ) -> None:
        self._irm = irm
        self._warn = warn
        self._grants = grants
        self._engine = engine
        self._make_channel = make_channel
        #: Of flows between two programs, without doorbells; kept to say that a side died.
        self._channels: dict[int, Channel] = {}
        self.handlers: dict[type[Effect], Callable[[Any], None]] = {
            Connect: self.connect,
            Loop: self.loop,
            Join: self.join,
            Attach: self.attach,
            MarkDead: self.mark_dead,
            Release: self.release,
        }

    def connect(self, effect: Connect) -> None:
        tokens = (effect.allocator, effect.acceptor)
        try:
            channel = self._make_channel()
            self._channels[effect.flow_id] = channel
            for side, token in enumerate(tokens):
                self._grants.grant(token, _granted(effect, side), channel)
            channel.close_bells()
        except OSError as error:
            for side, token in enumerate(tokens):
                self._grants.fail_flow(effect.flow_id, side, token, error)
        finally:
            _wipe(effect)

    def loop(self, effect: Loop) -> None:
        made: dict[int, Channel] = {}
        try:
            for side, user in enumerate(effect.users):
                if not isinstance(user, Member):
                    made[side] = self._make_channel()
            # The engine plays the other side in the channel of each program.
            programs = [made[side].engine(side) if side in made else None for side in (0, 1)]
            self._engine.flows.loop(effect, (programs[0], programs[1]))
        except OSError as error:
            for side in (0, 1):
                self._fail(effect, side, error)
        else:
            for side in (0, 1):
                self._grant(effect, side, made.get(side))
        finally:
            _wipe(effect)
            for channel in made.values():
                channel.close()

    def _grant(self, effect: Loop, side: int, channel: Channel | None) -> None:
        user = effect.users[side]
        if not isinstance(user, Member):
            assert channel is not None
            self._grants.grant(user, _granted(effect, side), channel)
        else:
            self._engine.flows.opened(effect.flow_id, side)

    def _fail(self, effect: Loop, side: int, error: OSError) -> None:
        user = effect.users[side]
        if isinstance(user, Member):
            self._irm.end_failed(effect.flow_id, side, str(error), self._engine.now())
        else:
            self._grants.fail_flow(effect.flow_id, side, user, error)

    def join(self, effect: Join) -> None:
        try:
            channel = self._make_channel()
        except OSError as error:
            self._grants.fail_flow(effect.flow_id, 0, effect.token, error)
            return
        with contextlib.closing(channel):
            try:
                # Before it is granted: what the others write once `join` has returned must reach it.
                self._engine.flows.join(effect, channel.engine(0))
            except OSError as error:
                self._grants.fail_flow(effect.flow_id, 0, effect.token, error)
            else:
                # A capture is in no layer.
                layer = effect.name if effect.snap is None else ""
                granted = Granted(effect.flow_id, effect.qos, 0, MAX_PACKET, name=effect.name, layer=layer)
                self._grants.grant(effect.token, granted, channel)

    def attach(self, effect: Attach) -> None:
        if isinstance(effect.user, Member):
            self._attach_member(effect)
        else:
            self._attach_program(effect, effect.user)

    def _attach_member(self, effect: Attach) -> None:
        try:
            self._engine.flows.attach(effect, None)
        except OSError as error:
            self._irm.end_failed(effect.flow_id, effect.side, str(error), self._engine.now())
            self._engine.withdraw(effect.end)
        else:
            self._engine.flows.opened(effect.flow_id, effect.side)
        finally:
            _wipe(effect)

    def _attach_program(self, effect: Attach, token: int) -> None:
        try:
            channel = self._make_channel()
        except OSError as error:
            _wipe(effect)
            self._fail_attach(effect, token, error)
            return
        with contextlib.closing(channel):
            try:
                size = self._engine.flows.attach(effect, channel.engine(effect.side))
            except OSError as error:
                self._fail_attach(effect, token, error)
            else:
                security = shown(effect.end.session)
                granted = Granted(
                    effect.flow_id,
                    effect.end.qos,
                    effect.side,
                    size.most,
                    security,
                    name=effect.name,
                    layer=effect.layer,
                )
                self._grants.grant(token, granted, channel)
            finally:
                _wipe(effect)

    def _fail_attach(self, effect: Attach, token: int, error: OSError) -> None:
        self._grants.fail_flow(effect.flow_id, effect.side, token, error)
        self._engine.withdraw(effect.end)

    def give_up(self, effect: Connect | Loop | Join | Attach, text: str) -> list[int]:
        """It met a bug, and its flow will not be. `text`: why, for people. Returns the requests that wait for it."""
        users: dict[int, User]
        match effect:
            case Connect():
                users = {0: effect.allocator, 1: effect.acceptor}
            case Loop():
                users = dict(enumerate(effect.users))
            case Join():
                users = {0: effect.token}
            case Attach():
                users = {effect.side: effect.user}
        if not isinstance(effect, Join):
            _wipe(effect)
        for side, user in users.items():
            self._engine.flows.discard(effect.flow_id, side)
            if isinstance(user, Member):
                self._irm.end_failed(effect.flow_id, side, text, self._engine.now())
            else:
                self._irm.abandon(effect.flow_id, side, user, self._engine.now())
        if isinstance(effect, Attach):
            self._engine.withdraw(effect.end)
        return [user for user in users.values() if not isinstance(user, Member)]

    def mark_dead(self, effect: MarkDead) -> None:
        # A joined flow has no memory here: its other side is the engine, which sees it end.
        if (channel := self._channels.get(effect.flow_id)) is None:
            self._engine.flows.doom(effect.flow_id, effect.side)
            return
        try:
            mark_dead(channel.memory, effect.side)
        except OSError as error:
            # One of the two wrote over it. The other sees the doorbell hang up.
            self._warn(f"flow {effect.flow_id} cannot be told that its side {effect.side} died: {error}")

    def release(self, effect: Release) -> None:
        # Not there when it could not be made.
        if (channel := self._channels.pop(effect.flow_id, None)) is not None:
            channel.close()
        else:
            self._engine.flows.release(effect.flow_id)

    def shut_down(self) -> None:
        for channel in self._channels.values():
            channel.close()


def _wipe(effect: Attach | Connect | Loop) -> None:
    """The engine or the program has the key, or nobody needs it."""
    for session in (effect.end.session,) if isinstance(effect, Attach) else effect.sessions or ():
        session.wipe()


def _granted(effect: Connect | Loop, side: int) -> Granted:
    """The answer to a program that gets an end of a flow within the node. The program has the key itself."""
    if effect.sessions is None:
        return Granted(effect.flow_id, effect.qos, side, MAX_PACKET, name=effect.name, layer=effect.layer)
    session = effect.sessions[side]
    longest = MAX_PACKET - CIPHER_BY_NUMBER[session.cipher].overhead
    key = bytes(session.key)
    return Granted(
        effect.flow_id, effect.qos, side, longest, shown(session), session.cipher, key, effect.name, effect.layer
    )
