"""`python -m graft.flows.cli`: the same as `graft`."""

from .main import main

main()
