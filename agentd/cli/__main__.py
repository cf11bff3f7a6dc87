"""`python -m agentd.cli` is `agentctl`, also where nothing is installed."""

from agentd.cli.start import main

main()
