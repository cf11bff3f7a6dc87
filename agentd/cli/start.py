"""Where agentctl starts: a hook gets its notice before click is imported, everything else is main.py's."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """The console script."""
    words = sys.argv[1:]
    if "--notice" in words:
        from agentd.cli.notice import announce

        if announce(words):
            os._exit(0)
    from agentd.cli.main import main

    main()
