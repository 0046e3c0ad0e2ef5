"""Candles and calls from the network: one file per source, what they share, and the raw answers that are kept."""
