"""The research lab for calls: ingest, truth, policies, search, immutable runs and their catalog, run by Dagster."""

__version__ = "0.1.0"
