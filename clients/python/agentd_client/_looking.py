"""How a client with a loop waits for shared memory: for a while it looks in each turn of the loop, and then has a
doorbell rung for it.

To be woken takes 30 µs, and ringing its sender another 15: two ends that answer at once go to and fro in a third of the
time while neither sleeps. Nothing else in the loop waits for that, and who looks in vain looks less and less, as
native/looking.h has it.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from agentd_client._direct import Direct

_MOST_WITHOUT: Final = 255


class Looking:
    """A client's."""

    def __init__(self, direct: Direct, next_turn: Callable[[Callable[[], None]], object]) -> None:
        self._direct = direct
        self._next_turn = next_turn
        self._looks = False
        self._until = 0.0
        self._next = 0  # so many waits go without, should the next look be in vain
        self._without = 0  # waits still to come that do not begin with a look

    def begins(self) -> bool:
        """Somebody waits for mail: whether this looks for it. Else doorbells must be armed."""
        if self._looks:
            return True
        if self._without:
            self._without -= 1
            return False
        if not self._direct.spin_ns:
            return False
        self._looks = True
        self._until = monotonic() + self._direct.spin_ns / 1e9
        self._next_turn(self._look)
        return True

    def _look(self) -> None:
        self._looks = False
        if not self._direct.closed:
            try:
                self._look_on(self._direct)
            except BaseException:  # whoever waits comes to know of it by a look of its own
                self._direct.look_for_mail()
                raise

    def _look_on(self, direct: Direct) -> None:
        is_waited_for = direct.is_waited_for
        if is_waited_for and direct.has_mail():
            self._next = 0
            direct.mail_came()
        elif is_waited_for and monotonic() < self._until:
            self._looks = True
            self._next_turn(self._look)
        else:  # in vain, also where what was waited for came through agentd
            self._without = self._next
            self._next = min(2 * self._next + 1, _MOST_WITHOUT)
            if is_waited_for and not direct.arm():
                direct.mail_came()
