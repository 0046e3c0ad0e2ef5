"""What a token's name looks like: addresses of Solana and of EVM chains, and their one spelling.

Belongs here: what both ingests must know of an address. Does not: which addresses of a message are calls.
"""

import re

BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_DIGITS = {letter: value for value, letter in enumerate(BASE58)}
_EVM = re.compile(r"0[xX][0-9a-fA-F]{40}")
# An address inside of a longer text, such as a file's name; an underscore or a dash ends it.
_ADDRESS = re.compile(r"(?<![0-9A-Za-z])(?:0x[0-9a-fA-F]{40}|[1-9A-HJ-NP-Za-km-z]{32,44})(?![0-9A-Za-z])")


def folded_mint(text: str) -> str:
    """Return the one spelling of a mint: an EVM address in lower case, anything else as it is."""
    return text.lower() if _EVM.fullmatch(text) else text


def folded_mint_sql(column: str) -> str:
    """Return the SQL of `folded_mint` for a column of text; the length is tested first, which is the cheap half."""
    evm = f"strlen({column}) = 42 AND regexp_full_match({column}, '0[xX][0-9a-fA-F]{{40}}')"
    return f"CASE WHEN {evm} THEN lower({column}) ELSE {column} END"


def base58_length(text: str) -> int | None:
    """Return how many bytes a base58 text stands for; None if it is no base58."""
    number = 0
    for letter in text:
        value = _DIGITS.get(letter)
        if value is None:
            return None
        number = number * 58 + value
    zeros = len(text) - len(text.lstrip("1"))
    return zeros + (number.bit_length() + 7) // 8


def is_solana_address(text: str) -> bool:
    """Whether a text is the base58 of 32 bytes, as every key of Solana is."""
    return 32 <= len(text) <= 44 and base58_length(text) == 32


def is_evm_address(text: str) -> bool:
    """Whether a text is `0x` and 40 hexadecimal digits."""
    return _EVM.fullmatch(text) is not None


def addresses_in(text: str) -> list[str]:
    """Return the addresses in a text, each once, in its order and spelling."""
    found = (match.group(0) for match in _ADDRESS.finditer(text))
    return list(dict.fromkeys(a for a in found if is_evm_address(a) or is_solana_address(a)))
