"""What holds on one machine alone: the run launcher, its services, the switch. No other room imports it."""
