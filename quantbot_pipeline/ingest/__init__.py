"""Files from outside become rows of the stores: formats, validation, merging, the inbox."""
