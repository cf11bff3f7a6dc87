"""Cores on which a thread of the kernel may take what a sender submits (high.sqpoll_cores): one sender each, since two
such threads on one core are slower than none."""

from __future__ import annotations

from agentd.hub.session import Session


class Leases:
    """Who has which."""

    def __init__(self, cores: list[int]) -> None:
        self._cores = list(dict.fromkeys(cores))
        self._holders: dict[int, Session] = {}
        self.without: dict[Session, str] = {}  # who asked and has none, and why

    def acquire(self, session: Session, has: list[int]) -> list[int]:
        """A core for this session: the one it has, also from before agentd came back, or one that nobody has."""
        mine = [core for core, holder in self._holders.items() if holder is session]
        free = [core for core in self._cores if core not in self._holders]
        cores = mine or [core for core in free if core in has] or ([] if has else free)
        if not cores:
            if has:
                self.without[session] = f"core {has[0]}, which it has still, is not its own any more"
            elif self._cores:
                self.without[session] = "each of high.sqpoll_cores is another's"
            return []
        self._holders[cores[0]] = session
        self.without.pop(session, None)
        return cores[:1]

    def release(self, session: Session, why: str = "") -> None:
        """It has none; `why`, if it could not use the one it had."""
        self._holders = {core: holder for core, holder in self._holders.items() if holder is not session}
        if why:
            self.without[session] = why
        else:
            self.without.pop(session, None)

    def shown(self) -> str:
        """For `agentctl lanes`; empty where no such cores are configured."""
        held = [f"core {core}: {holder.name}" for core, holder in sorted(self._holders.items())]
        plain = [f"{session.name} without: {why}" for session, why in self.without.items()]
        return "; ".join(held + plain)

    def __len__(self) -> int:
        return len(self._holders)
