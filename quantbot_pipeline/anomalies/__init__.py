"""What is odd in a month's candles and calls: arrays in, findings out. Source: docs/anomalies.md."""
