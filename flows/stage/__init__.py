"""One stage, run and recorded: `python -m graft.flows.stage NAME`."""
