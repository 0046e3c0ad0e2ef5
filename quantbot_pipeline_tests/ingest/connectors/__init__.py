"""The sources of the network against servers on this machine."""
