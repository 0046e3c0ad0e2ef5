"""How a run is kept: the commit protocol, `run.json`, verification. What a file of a run contains is in `artifacts`."""
