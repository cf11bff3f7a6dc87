"""`python -m agentd.cli` is `agentctl`, also where nothing is installed."""

from agentd.cli.main import main

main()
