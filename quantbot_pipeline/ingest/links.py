"""What a link says of the addresses in it: the page of a token, of a pool, of a wallet, or one side of a swap.

Belongs here: hosts, paths and query keys of the sites that callers link to. Does not: whether an address is valid.
"""

import re
from collections.abc import Iterator
from urllib.parse import unquote

# A run of letters and digits that may be an address: the shortest of Solana has 32, the longest 44; EVM has 42.
CANDIDATE = re.compile(r"(?<![0-9A-Za-z])[0-9A-Za-z]{32,44}(?![0-9A-Za-z])")
# A link in running text, with its scheme or without.
LINK = re.compile(
    r"[a-z][a-z0-9+.-]{0,15}://[^\s<>\"']+|(?<![\w@./-])[a-z0-9-]+(?:\.[a-z0-9-]+)*\.[a-z]{2,}/[^\s<>\"']+",
    re.IGNORECASE,
)

TOKEN, POOL, WALLET, SWAP_INPUT = "token", "pool", "wallet", "swap_input"

# Pages that show a pool under any path of theirs, unless the path says otherwise.
POOL_HOSTS = frozenset(
    ("dexscreener.com", "dextools.io", "defined.fi", "dexlab.space", "dexview.com", "ave.ai", "meteora.ag")
)
PAGES = {
    TOKEN: ("token", "tokens", "coin", "coins", "mint", "ca", "t"),
    POOL: (
        "lp",
        "pool",
        "pools",
        "pair",
        "pairs",
        "pair-explorer",
        "pairexplorer",
        "amm",
        "dlmm",
        "clmm",
        "liquidity",
        "liquidity-pools",
        "meme",
        "market",
        "markets",
        "whirlpool",
        "whirlpools",
        "dexscan",
    ),
    WALLET: (
        "account",
        "accounts",
        "address",
        "addresses",
        "wallet",
        "wallets",
        "profile",
        "profiles",
        "portfolio",
        "holder",
        "holders",
        "trader",
        "traders",
        "user",
        "users",
        "u",
        "wallet-analyzer",
        "owner",
        "contract-creator",
    ),
}
KEYS = {
    TOKEN: ("outputmint", "outputcurrency", "tokenout", "output", "out", "buy", "to", "tocurrency"),
    POOL: ("pool", "poolid", "pair", "pairaddress", "lp", "amm", "ammid", "market", "marketid"),
    WALLET: ("maker", "wallet", "account", "owner", "user", "trader", "holder", "creator", "dev", "ref", "referrer"),
    SWAP_INPUT: ("inputmint", "inputcurrency", "tokenin", "input", "in", "sell", "from", "fromcurrency"),
}
SWAPS = frozenset(("swap", "limit", "dca", "recurring", "exchange"))
_PAGE = {word: verdict for verdict, words in PAGES.items() for word in words}
_KEY = {word: verdict for verdict, words in KEYS.items() for word in words}
# Makers of tokens end their addresses so; no pool does.
MINT_ENDINGS = ("pump", "bonk", "moon", "BAGS")
MAX_DEPTH = 3  # of links within links


def addresses_of(link: str, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yield (text that may be an address, TOKEN, POOL, WALLET or SWAP_INPUT) of a link, in its order."""
    if "%" in link:
        link = unquote(link)
    scheme, found, rest = link.partition("://")
    if not found or not scheme.replace("+", "").isalnum():
        rest = link
    place, _, query = rest.partition("?")
    host, _, path = place.partition("/")
    if not found and "." not in host:  # no link: what a button copies, or sends to its bot
        yield from ((address, TOKEN) for address in CANDIDATE.findall(host))
    host = host.lower().rpartition("@")[2].partition(":")[0]
    of_pools = any(host == known or host.endswith("." + known) for known in POOL_HOSTS)
    for address, verdict in _of_path(path, POOL if of_pools else TOKEN):
        yield address, TOKEN if verdict == POOL and address.endswith(MINT_ENDINGS) else verdict
    for part in re.split(r"[&;#]", query):
        key, _, value = part.partition("=")
        if "://" in value and depth < MAX_DEPTH:  # a link that is shared by another one
            yield from addresses_of(value, depth + 1)
            continue
        for address in CANDIDATE.findall(value or key):
            yield address, _KEY.get(re.sub("[-_]", "", key.lower()), TOKEN) if value else TOKEN


def _of_path(path: str, otherwise: str) -> Iterator[tuple[str, str]]:
    """Judge the addresses of a path by the last word before each; behind a token's page follows its pool."""
    segments = [segment for segment in re.split(r"[/#]+", path) if segment]
    verdict = otherwise
    for at, segment in enumerate(segments):
        word = segment.lower()
        if word in SWAPS:
            yield from _of_swap(segments[at + 1 :])
            return
        verdict = _PAGE.get(word, verdict)
        for address in CANDIDATE.findall(segment):
            yield address, verdict
            verdict = POOL if verdict == TOKEN else verdict


def _of_swap(segments: list[str]) -> Iterator[tuple[str, str]]:
    """Judge the two sides of a swap, `A-B` or `A/B`: the last one is what is bought."""
    sides = [side for segment in segments for side in re.split(r"[-_]", segment) if side]
    for at, side in enumerate(sides):
        for address in CANDIDATE.findall(side):
            yield address, TOKEN if at == len(sides) - 1 else SWAP_INPUT
