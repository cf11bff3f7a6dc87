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

    def acquire(self, session: Session) -> list[int]:
        """A core for this session: the one it has, or one that nobody has; none where there is none."""
        mine = [core for core, holder in self._holders.items() if holder is session]
        free = [core for core in self._cores if core not in self._holders]
        if not mine and not free:
            if self._cores:
                self.without[session] = "each of high.sqpoll_cores is another's"
            return []
        core = mine[0] if mine else free[0]
        self._holders[core] = session
        self.without.pop(session, None)
        return [core]

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
