"""What holds on one machine alone: the run launcher, its services, repetitions, the switch. No other room imports it."""
