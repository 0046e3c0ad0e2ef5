"""Exceptions whose message a user can act on: what is wrong, where (file, row, key), and how to mend it."""


class QuantbotError(Exception):
    """Base of every error that is reported as one line instead of a traceback."""


class InputError(QuantbotError):
    """The user's files or arguments are wrong; the command line answers with exit status 2."""


class IntegrityError(QuantbotError):
    """Something on disk is not what its manifest promises (checksum, size, schema, name)."""


class StoreError(QuantbotError):
    """A store could not be read or written: locked for too long, no space, no rights."""
