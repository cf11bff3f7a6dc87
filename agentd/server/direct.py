"""The direct lanes' control plane: who is attached, which pairs there are, and their end. The daemon makes a pair's
memory, hands it to both ends and lets go of it; it keeps who they are.

A pair comes about so: the sender says Open; the receiver, invited if it is not attached yet, is Offered the pair and
answers Mapped; then the sender is Granted it. So whatever the sender writes is read.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agentd.host.topology import Topology
from agentd.hub.agents import Agent
from agentd.hub.pairs import Pair
from agentd.hub.session import Session
from agentd.lanes import closed
from agentd.lanes.direct import DirectLane
from agentd.server.ends import End, Offer, pinned_to
from agentd.server.grants import GrantsConnection
from agentd.server.invitations import Invitations
from agentd.server.leases import Leases
from agentd.server.presented import Presented
from agentd.server.relays import Relays
from agentd.server.shapes import Shapes
from agentd.server.tokens import Tokens
from agentd.wire import choice, grants
from agentd.wire.choice import Recipient
from agentd.wire.errors import Absent, AgentdError, Busy, LaneUnavailable, LimitReached
from agentd.wire.messages import Attachment, Priority

if TYPE_CHECKING:
    from agentd.server.served import ServedSession
    from agentd.server.server import Server

log = logging.getLogger(__name__)

_MAX_UNANSWERED: Final = 64
#: How long a receiver has to map a pair.
_ANSWER_S: Final = 5.0


class Direct:
    """All of it, for the server."""

    def __init__(
        self, server: Server, lanes: tuple[DirectLane, ...], socket_path: Path, topology: Topology, max_attached: int
    ) -> None:
        self._server = server
        self._hub = server.hub
        self._lanes = {lane.priority: lane for lane in lanes}
        self._topology = topology
        self._max_attached = max_attached
        self._socket_path = socket_path
        self.limits = server.config.direct
        self._ends: dict[Session, End] = {}
        self._tokens = Tokens(self.limits.token_s)
        self._invitations = Invitations(self)
        self._shapes = Shapes(server.config, self._hub.pairs)
        self._offered: dict[int, Offer] = {}  # by number
        self._presented = Presented(self)
        self.leases = Leases(server.config.high.sqpoll_cores)
        self._lanes[Priority.HIGH].more = self.leases.shown
        self._relays = Relays(server, lanes)
        self._my_process = -1
        self._stopping = False
        for lane in lanes:
            lane.invite = partial(self._invite_for_relay, lane.priority)
            lane.standing = partial(self._standing, lane.priority)

    def open(self) -> None:
        """The loop runs."""
        self._relays.open()
        self._my_process = os.pidfd_open(os.getpid())

    def close(self) -> None:
        """The daemon ends; pairs go on without it, so nobody is told that they are over."""
        if self._my_process < 0:
            return
        self._stopping = True
        self._relays.stopping()
        for session, end in list(self._ends.items()):
            end.connection.close()
            self.session_gone(session, "agentd is stopping")
        self._relays.close()
        os.close(self._my_process)
        self._my_process = -1

    # Attaching.

    def attachment(self, session: ServedSession, cid: int) -> Attachment:
        """A token. The one before it, if there is one, is void."""
        closed = [lane.reason for lane in self._lanes.values() if not lane.open]
        if len(closed) == len(self._lanes):
            raise LaneUnavailable(f"No shared memory: {closed[0]}", "Messages are relayed by agentd.")
        if len(self._ends) >= self._max_attached and session not in self._ends:
            self._stays_out(session, "agentd has no descriptors left for it")
            raise LimitReached(
                f"{len(self._ends)} agents are attached, as many as the limit of open files allows",
                "Raise it (ulimit -n, LimitNOFILE=); messages are relayed.",
            )
        now = self._server.now()
        token = self._tokens.issue(session, now)
        return Attachment(cid, token, str(self._socket_path))

    def redeem(self, token: bytes, pid: int) -> ServedSession | None:
        """Whose token that is, if it is still good and comes from the same process."""
        return self._tokens.redeem(token, pid, self._server.now())

    def attached(self, session: ServedSession, connection: GrantsConnection) -> None:
        """The session is here too. One connection each: the later one counts."""
        before = self._ends.pop(session, None)
        if before is not None:
            before.connection.close()
            before.close()
        try:
            end = self._ends[session] = End(connection)
        except OSError as error:
            log.warning("pid %d can't be attached: %s", connection.pid, error.strerror)
            connection.close()
            self._stays_out(session, f"agentd: {error.strerror}")
            return
        topology = self._topology
        cores = list(topology.performance) if self.limits.pin == "auto" else pinned_to(self.limits.pin)
        about = f"{topology.kind}, by {topology.source}" if self.limits.pin == "auto" else "direct.pin"
        high = self._server.config.high
        welcome = grants.Attached(cores, self.limits.spin_us, about, high.async_bytes, not high.io_uring)
        critical_bell, high_bell = end.mail_bells.values()
        connection.say(welcome, critical_bell, end.verdict_bell, high_bell)
        if before is not None:  # it leaves the pairs that relay to it: what came into one after that nobody would read
            for lane in self._lanes.values():
                self._end_relay(session, lane, "it has attached anew")

    def _stays_out(self, session: ServedSession, why: str) -> None:
        """It can't be attached: nobody need wait for that."""
        session.can_attach = False
        self._invitations.refuse(session, why)

    def detached(self, session: ServedSession, connection: GrantsConnection) -> None:
        """Its grants connection is gone: no new pairs; those it has go on while the session lives."""
        end = self._ends.get(session)
        if end is not None and end.connection is connection:
            end.reads.clear()
            self._invitations.refuse(session, "it is not attached any more")

    def joined(self, session: ServedSession) -> None:
        """Whom it has displaced is sent nothing any more, not by those either who have a pair to it."""
        displaced: list[Any] = [other for other in session.agent.sessions if not other.takes and other in self._ends]
        for other in displaced:
            self._ends[other].reads.clear()
            why = f"{other.name}'s mail is taken by another session"
            self._invitations.refuse(other, why)
            for pair in list(other.reads_from.values()):
                self.end_pair(pair, why)
            for lane in self._lanes.values():
                self._relays.end(other, lane, why)

    def session_gone(self, session: Session, why: str) -> None:
        """All its pairs are over, and whoever sleeps on one of them is woken."""
        self._tokens.session_gone(session)
        self._invitations.refuse(session, f"{session.name if session.joined else 'it'} is gone")
        for pair in self._hub.pairs.of(session):
            if pair.sender is session and (end := self._ends.get(pair.receiver)):
                os.eventfd_write(end.mail_bells[pair.lane], 1)  # what it wrote last it may not have rung for
            self.end_pair(pair, why, tell=session)
        for lane in self._lanes.values():
            self._end_relay(session, lane, why)
            lane.pinned.pop(session, None)
        self._presented.session_gone(session)
        self.leases.release(session)
        end = self._ends.pop(session, None)
        if end is not None:
            end.connection.close()
            end.close()

    # What the ends say.

    def heard(self, session: ServedSession, packet: Any, fds: list[int]) -> None:
        """One packet. What it asks for and can't have is refused by name."""
        match packet:
            case grants.Open():
                try:
                    self._open(session, packet, self._lane(packet.lane))
                except AgentdError as error:
                    self._ends[session].connection.refuse(packet.cid, error)
            case grants.Mapped(number=number, error=error):
                if number in session.reads_from:
                    self._answered(number, error)
            case grants.Closed(number=number, reason=reason):
                pair = session.sends_into.get(number) or session.reads_from.get(number)
                if pair is not None:
                    self.end_pair(pair, reason or "the other end has left", tell=session)
                    if pair.sender is None:
                        self._relay_anew(session, self._lanes[pair.lane], reason)
            case grants.Present():
                if len(fds) == 1:
                    self._presented.take(session, packet, fds[0])
            case grants.Pinned(cores=cores, about=about):
                self._lane(packet.lane).pinned[session] = f"{cores} ({about})" if about else cores
            case grants.Measured(taken=taken, latencies_ns=latencies_ns):
                self._lane(packet.lane).measured(taken, latencies_ns)
            case grants.Kept(number=number, blocks=blocks, kept_s=kept_s):
                if (pair := session.reads_from.get(number)) is not None:
                    pair.kept, pair.kept_since = blocks, self._server.now() - kept_s
            case grants.Lease(wants=wants, about=about, has=has):
                if wants:
                    self._ends[session].connection.say(grants.Leased(packet.lane, self.leases.acquire(session, has)))
                else:
                    self.leases.release(session, about)
            case grants.Submitted(counts=counts):
                self._lane(packet.lane).submitted(counts)
            case grants.Idle(reads=reads):
                self._reads(session, self._lane(packet.lane), reads)
        self._server.flush(self._server.now())

    def _lane(self, number: int) -> DirectLane:
        """LaneUnavailable for one that there is not, which ends the connection of who does not ask for an answer."""
        priority = grants.PRIORITIES.get(number)
        if priority is None:
            raise LaneUnavailable(f"There is no direct lane {number}", "`agentctl lanes` shows which are open.")
        return self._lanes[priority]

    def _reads(self, session: ServedSession, lane: DirectLane, reads: bool) -> None:
        end = self._ends[session]
        if not reads:
            end.reads.discard(lane.priority)
            self._end_relay(session, lane, f"{session.name} reads its ring no more")
            return
        end.reads.add(lane.priority)
        if lane.priority is Priority.CRITICAL:  # by which it may be asked to stop at once; others when they are needed
            self._make_relay(session, lane)
        for sender, packet in self._invitations.come(session, lane.priority):
            try:
                self._grant(sender, session, lane, packet)
            except AgentdError as error:
                self._refuse(sender, packet.cid, error)

    # Pairs.

    def _open(self, session: ServedSession, packet: grants.Open, lane: DirectLane) -> None:
        agent = self._hub.agents.by_name.get(packet.to)
        if agent is None or not agent.has_address:
            raise self._hub.agents.unknown(packet.to, sending=False)
        if not lane.open:
            raise closed.refusal(lane.priority, lane.reason)
        if self._hub.router.draining:
            raise Busy("agentd is stopping", "Try again in a moment.", retry_after=1.0)
        if not agent.takers:
            raise choice.refusal("direct_absent", to=agent.name, lane=lane.priority.value)
        receivers: list[Any] = agent.takers
        ready = [one for one in receivers if one in self._ends and lane.priority in self._ends[one].reads]
        if ready:
            self._grant(session, min(ready, key=lambda one: len(one.reads_from)), lane, packet)
            return
        able = [one for one in receivers if one.can_attach]
        if not able:
            raise choice.refusal("direct_to_socket", to=agent.name)
        self._invitations.wait(able[0], lane.priority, session, packet)

    def _standing(self, lane: Priority, session: Session, relayed: bool) -> Recipient:
        """How it would be reached now. As _open and _invite_for_relay find it, without asking it for anything."""
        end = self._ends.get(session)
        if end is not None and lane in end.reads:
            able = not relayed or (session.can_attach and lane not in end.unrelayed)
            return Recipient.RING if able else Recipient.SOCKET
        return Recipient.ATTACHING if session.can_attach else Recipient.SOCKET

    def _invite_for_relay(self, lane: Priority, session: Any) -> bool:
        """Somebody without shared memory has something for it. Whether it is worth waiting for it to attach."""
        end = self._ends.get(session)
        if end is not None and lane in end.reads:
            if lane in end.unrelayed:
                return False
            self._make_relay(session, self._lanes[lane])
            return lane not in end.unrelayed
        self._invitations.invite(session, lane)
        return True

    def refuse(self, sender: ServedSession, cid: int, why: str) -> None:
        """It gets no pair, since the other end can't have one."""
        self._refuse(sender, cid, LaneUnavailable(why))

    def _refuse(self, sender: ServedSession, cid: int, error: AgentdError) -> None:
        end = self._ends.get(sender)
        if end is not None:
            end.connection.refuse(cid, error)

    def _grant(self, sender: ServedSession, receiver: ServedSession, lane: DirectLane, packet: grants.Open) -> None:
        if sender not in self._ends:
            return
        unanswered = sum(number in self._offered for number in receiver.reads_from)
        if unanswered >= _MAX_UNANSWERED:
            raise LimitReached(f"{unanswered} pairs wait for {receiver.name} to map them", "Try again in a moment.")
        pair = self._hub.pairs.open(lane.priority, sender, receiver, *self._shapes.sizes(lane.priority))
        memory = self._shapes.create(pair)
        self._offer(pair, memory, partial(self._granted, pair, memory, packet))

    def _offer(self, pair: Pair, memory: int, then: Callable[[str], None]) -> None:
        sender: Any = pair.sender
        receiver: Any = pair.receiver
        bell = self._relays.bell if sender is None else self._ends[sender].verdict_bell
        process = self._my_process if sender is None else sender.pidfd
        about = "" if sender is None else sender.provenance
        shape = self._shapes.of(pair)
        offer = grants.Offered(
            pair.number, *shape, pair.sender_name, about, relays=sender is None, pool_bytes=pair.pool_bytes
        )
        timer = self._server.loop.call_later(_ANSWER_S, self._not_answered, pair)
        self._offered[pair.number] = Offer(memory, then, timer)
        self._ends[receiver].connection.say(offer, *(fd for fd in (memory, bell, process) if fd is not None))
        if receiver.agent.paused:
            self._tell_paused(receiver, pair.number, on=True)

    def _answered(self, number: int, error: str) -> None:
        offer = self._offered.pop(number, None)
        if offer is not None:
            offer.timer.cancel()
            try:
                offer.then(error)
            finally:
                os.close(offer.memory)

    def _not_answered(self, pair: Pair) -> None:
        """It is stopped, or up to no good: what is kept for it here is not kept for ever."""
        if pair.number in self._offered and self._hub.pairs.by_number.get(pair.number) is pair:
            self.end_pair(pair, f"{pair.receiver.name} has not answered within {_ANSWER_S:g} s")
            self._server.flush(self._server.now())

    def _granted(self, pair: Pair, memory: int, packet: grants.Open, error: str) -> None:
        sender: Any = pair.sender
        receiver: Any = pair.receiver
        end = self._ends.get(sender)
        if receiver.closed:
            self._refuse(sender, packet.cid, Absent(f"{packet.to} has just left"))
        elif pair.number not in self._hub.pairs.by_number:
            self._refuse(sender, packet.cid, LaneUnavailable(f"No channel to {packet.to}: {error}"))
        elif error:
            self._hub.pairs.close(pair.number)
            self._refuse(sender, packet.cid, LimitReached(f"{packet.to} can't read a pair: {error}"))
        elif end is None:
            self.end_pair(pair, "the sender has left", tell=sender)
        else:
            shape = self._shapes.of(pair)
            granted = grants.Granted(
                packet.cid, pair.number, *shape, receiver.name, receiver.provenance, pair.pool_bytes
            )
            bells = (memory, self._ends[receiver].mail_bells[pair.lane], receiver.pidfd)
            if not end.connection.say(granted, *(fd for fd in bells if fd is not None)):
                self.end_pair(pair, "the sender is not attached any more", tell=sender)

    def end_pair(self, pair: Pair, why: str, *, tell: Session | None = None) -> None:
        """It is over: both are told, but for the one who said so, and for a sender who has not been granted it."""
        if self._hub.pairs.close(pair.number) is None:
            return
        for other in (pair.receiver,) if pair.number in self._offered else (pair.sender, pair.receiver):
            end = None if other is None or other is tell else self._ends.get(other)
            if end is not None and not self._stopping:
                end.connection.say(grants.Closed(pair.number, why[:500]))
        self._answered(pair.number, why)

    # Relaying.

    def _make_relay(self, session: ServedSession, lane: DirectLane) -> None:
        if session in lane.relays:
            return
        try:
            pair = self._hub.pairs.open(lane.priority, None, session, *self._shapes.sizes(lane.priority, relays=True))
            memory = self._shapes.create(pair)
        except LimitReached as error:
            log.warning("nothing can be relayed to %s: %s", session.name, error.message)
            self._ends[session].unrelayed.add(lane.priority)
            return
        lane.relays[session] = None
        self._offer(pair, memory, partial(self._relay_mapped, pair, lane, memory))

    def _end_relay(self, session: Session, lane: DirectLane, why: str) -> None:
        mine = [pair for pair in session.reads_from.values() if pair.sender is None and pair.lane is lane.priority]
        for pair in mine:
            self.end_pair(pair, why)
        self._relays.end(session, lane, why)

    def _relay_anew(self, session: ServedSession, lane: DirectLane, why: str) -> None:
        """It has left the pair that relays to it, as one does that attached anew."""
        self._end_relay(session, lane, why)
        end = self._ends.get(session)
        if end is not None and lane.priority in end.reads and lane.priority is Priority.CRITICAL:
            self._make_relay(session, lane)

    def _relay_mapped(self, pair: Pair, lane: DirectLane, memory: int, error: str) -> None:
        session: Any = pair.receiver
        end = self._ends.get(session)
        if error or end is None or session not in lane.relays:
            if self._hub.pairs.close(pair.number) is not None and error:  # or it was us who ended it
                session.can_attach = False
            lane.relays.pop(session, None)
            return
        try:
            self._relays.make(pair, lane, self._shapes.of(pair), memory, end.mail_bells[pair.lane])
        except OSError as failed:
            log.warning("nothing can be relayed to %s: %s", session.name, failed.strerror)
            lane.relays.pop(session, None)
            self.end_pair(pair, "agentd has no memory for it")

    def pause(self, agent: Agent, *, on: bool) -> None:
        """Its receiving ends are to let nothing in, or to do so again."""
        for session in agent.sessions:
            for number in session.reads_from:
                self._tell_paused(session, number, on=on)

    def _tell_paused(self, session: Any, number: int, *, on: bool) -> None:
        end = self._ends.get(session)
        if end is not None:
            end.connection.say(grants.Paused(number, on))

    # For those who ask.

    def end_of(self, session: ServedSession) -> End | None:
        """Where a session is attached."""
        return self._ends.get(session)

    def believe(self, sender: ServedSession, receiver: ServedSession, packet: grants.Present) -> Pair:
        """A pair that both presented: it is one again."""
        sizes = self._shapes.presented(packet)
        return self._hub.pairs.open(grants.PRIORITIES[packet.lane], sender, receiver, *sizes, packet.number)

    @property
    def server(self) -> Server:
        """Whose."""
        return self._server

    def statistics(self) -> dict[str, int]:
        """How much there is of what, now."""
        return {
            "attached": len(self._ends),
            "tokens": len(self._tokens),
            "waiting": len(self._invitations),
            "offered": len(self._offered),
            "relayed": sum(len(relay.out) for relay in self._relays),
            "relays": sum(1 for _ in self._relays),
            "leased": len(self.leases),
            "presented": len(self._presented.by_number),
        }
