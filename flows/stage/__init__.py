"""One stage, run and recorded: `python -m flows.stage NAME`."""
