"""For pytest, which finds it by itself: the fixture `agentd_hub` and the marker `agentd`.

    @pytest.mark.agentd("inbox.max_messages=2")   # settings, as of `agentd --set`; without any, leave it out
    async def test_builder(agentd_hub): ...

Every connect() of the test comes to the hub. It needs no event loop of its own: asyncio or not, pytest-asyncio or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from agentd_client.testing import MemoryHub


def pytest_configure(config: pytest.Config) -> None:
    """Say which markers there are."""
    config.addinivalue_line("markers", "agentd(*settings): settings of the hub in memory, such as inbox.max_messages=2")


@pytest.fixture
def agentd_hub(request: pytest.FixtureRequest) -> Iterator[MemoryHub]:
    """A hub in memory to which every connect() of this process comes. See agentd_client.testing."""
    from agentd_client import testing  # who does not test with it does not pay for it

    marker = request.node.get_closest_marker("agentd")
    with testing.memory(*(marker.args if marker else ())) as hub, hub.installed():
        yield hub
