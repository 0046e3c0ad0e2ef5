"""Exceptions whose message a user can act on: what is wrong, where (file, row, key), and how to mend it."""


def counted(number: int, noun: str) -> str:
    """A number with its noun, for a message: `1 row`, `2 rows`."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


class QuantbotError(Exception):
    """Base of every error that is reported as one line instead of a traceback."""


class InputError(QuantbotError):
    """The user's files or arguments are wrong; the command line answers with exit status 2."""


class IntegrityError(QuantbotError):
    """Something on disk is not what its manifest promises (checksum, size, schema, name)."""


class StoreError(QuantbotError):
    """A store could not be read or written: locked for too long, no space, no rights."""
