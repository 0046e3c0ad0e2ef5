"""What holds on a cluster alone: how a run is given to a worker, and how it is noticed that the worker is gone."""
