"""The writing of a checkpoint, in a thread: the loop goes on meanwhile."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from agentd.host.config import JournalSettings
from agentd.hub import checkpoint, remembered
from agentd.hub.checkpoint import Checkpoint
from agentd.hub.hub import Hub
from agentd.hub.receipts import Entry
from agentd.server.disk import write_checkpoint

#: Its file.
CHECKPOINT: Final = "checkpoint"
#: Of journal.max_bytes, what has ended may take this part.
_ENDED_PART: Final = 64
#: So long nothing is encoded after each part of what has ended: the loop waits for one part at most.
_BREATH_S: Final = 0.0001


def ended(hub: Hub, settings: JournalSettings) -> list[Entry]:
    """Those that a checkpoint has beside all that it must have."""
    return remembered.collect(hub, settings.max_bytes // _ENDED_PART)


def write(directory: Path, found: Checkpoint, over: list[Entry]) -> None:
    """With these that have ended. OSError where it can't be written."""
    for chunk in remembered.encode(over):
        found.over.append(chunk)
        time.sleep(_BREATH_S)
    write_checkpoint(directory / CHECKPOINT, checkpoint.encode(found))
