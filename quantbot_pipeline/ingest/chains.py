"""Names of chains: the many spellings of one chain become one word.

Belongs here: the table of spellings. Does not: which token lives on which chain.
"""

# Compared without case and surrounding blanks; a chain that is not here is kept exactly as it is written.
SPELLINGS: dict[str, tuple[str, ...]] = {
    "solana": ("sol", "solana"),
    "ethereum": ("eth", "ethereum", "erc20"),
    "bsc": ("bsc", "bnb", "bep20"),
    "base": ("base",),
    "polygon": ("polygon", "matic"),
    "arbitrum": ("arbitrum", "arb"),
    "avalanche": ("avalanche", "avax"),
    "sui": ("sui",),
    "ton": ("ton",),
    "tron": ("tron",),
}
_FOLDED = {spelling: chain for chain, spellings in SPELLINGS.items() for spelling in spellings}


def folded_chain(text: str) -> str:
    """Return the one word for a chain; a chain that the table does not have stays as it is."""
    return _FOLDED.get(text.strip().lower(), text)


def folded_chain_sql(column: str) -> str:
    """Return the SQL of `folded_chain` for a column of text."""
    spelled = f"lower(trim({column}, ' \t\n\r'))"
    cases = " ".join(f"WHEN '{spelling}' THEN '{chain}'" for spelling, chain in _FOLDED.items())
    return f"CASE {spelled} {cases} ELSE {column} END"
