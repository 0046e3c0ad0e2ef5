"""Which addresses in a message are tokens that it calls, and why the others are none.

Belongs here: the judgement of one message, and the addresses that everybody trades against. Does not: who said it, when,
and whether somebody said it before.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from quantbot_pipeline.ingest.links import CANDIDATE, LINK, POOL, TOKEN, WALLET, addresses_of
from quantbot_pipeline.ingest.tokens import base58_length, folded_mint, is_evm_address

# What tokens are traded against: it is named in links and texts, and never called.
QUOTES = frozenset(
    (
        "So11111111111111111111111111111111111111112",  # wrapped SOL
        "So11111111111111111111111111111111111111111",
        "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v",  # USDC
        "Es9vMFrzaCERmJfrF4H2FYD4KCoNkY11McCe8BenwNYB",  # USDT
        "USDSwr9ApdHk5bvJKMjzff41FfuX8bSxdKcR81vTwcA",  # USDS
        "2b1kV6DkPAnxd5ixfnxCpjxmKwqjjaYmCZfHsFu24GXo",  # PYUSD
        "USD1ttGY1N17NEEHLmELoaybftRBUSErhqYiQzvEmuB",  # USD1
        "mSoLzYCxHdYgdzU16g5QSh3i5K3z3KZK7ytfqcJm7So",  # mSOL
        "J1toso1uCk3RLmjorhTtrVwY9HJ7X8V9yYac6Y7kGCPn",  # JitoSOL
        "0xc02aaa39b223fe8d0a0e5c4f27ead9083c756cc2",  # WETH on Ethereum
        "0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48",  # USDC on Ethereum
        "0xdac17f958d2ee523a2206206994597c13d831ec7",  # USDT on Ethereum
        "0x6b175474e89094c44da98b954eedeac495271d0f",  # DAI on Ethereum
        "0x2260fac5e5542a773aa44fbcfedf7c193bc2c599",  # WBTC on Ethereum
        "0x4200000000000000000000000000000000000006",  # WETH on Base and Optimism
        "0x833589fcd6edb6e08f4c7c32d4f71b54bda02913",  # USDC on Base
        "0xfde4c96c8593536e31f229ea8f37b2ada2699bb2",  # USDT on Base
        "0xbb4cdb9cbd36b01bd1cbaebf2de08d9173bc095c",  # WBNB
        "0x55d398326f99059ff775485246999027b3197955",  # USDT on BSC
        "0x8ac76a51cc950d9822d68b83fe1ad97b32cd580d",  # USDC on BSC
        "0xe9e7cea3dedca5984780bafc599bd69add087d56",  # BUSD
        "0x82af49447d8a07e3bd95bd0d56f35241523fbab1",  # WETH on Arbitrum
        "0xaf88d065e77c8cc2239327c5edb3a432268e5831",  # USDC on Arbitrum
        "0xfd086bc7cd5c481dcc9c85ebe478a1c0b69fcbb9",  # USDT on Arbitrum
        "0x0d500b1d8e8ef31e21c99d1db9a6444d3adf1270",  # WMATIC
        "0x3c499c542cef5e3811e1192ce70d8cc03d5c3359",  # USDC on Polygon
        "0xc2132d05d31c914a87c6611c10748aeb04b58e8f",  # USDT on Polygon
        "0xb31f66aa3c1e785363f0875a1b74e27b85fd66c7",  # WAVAX
        "0xb97ef9ef8734c71904d8002f8b6bc66dd9c48a6e",  # USDC on Avalanche
        "0xeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee",  # the native coin, in links to swaps
    )
)
# Code and accounts of the chains themselves. Further ones are known by a run of ones; see `against`.
PROGRAMS = frozenset(
    (
        "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA",
        "TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb",
        "ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL",
        "MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr",
        "metaqbxxUerdq28cj1RbAWkYQm3ybzjb6a8bt518x1s",
        "675kPX9MHTjS2zt1qfr1NYHuzeLXfQM9H24wFSUt1Mp8",
        "5Q544fKrFoe6tsEbD7S8EmxGTJYAKtTVhAW5Q5pge4j1",
        "CAMMCzo5YL8w4VFF8KVHrK22GGUsp5VTaW7grrKgrWqK",
        "CPMMoo8L3F4NbTegBCKVNunggL7H1ZpdTHKxQB5qKP1C",
        "LanMV9sAd7wArD4vJFi2qDdfnVhFxYSUg6eADduJ3uj",
        "whirLbMiicVdio4qvUfM5KAg6Ct8VwpYzGff3uctyCc",
        "JUP6LkbZbjS1jKKwapdHNy74zcZ3tLUZoi5QNyVTaV4",
        "6EF8rrecthR5Dkzon8Nwu78hRvfCKubJ14M5uBEwF6P",
        "pAMMBay6oceH9fJKBRHGP5D4bD4sWpmSwMn52FMfXEA",
        "LBUZKhRxPF3XUpBCjp4YzTKgLccjZhTSDM9YuVaPwxo",
        "0x0000000000000000000000000000000000000000",
        "0x000000000000000000000000000000000000dead",
        "0xdead000000000000000042069420694206942069",
    )
)
FEWEST_LETTERS = 8  # different ones; a random address has about 30, a shout such as HAHAHA… two
COMMAND = re.compile(r"\s*[/!][A-Za-z]")
# What a text calls the address behind it: `Dev wallet: ADDRESS`, `LP: ADDRESS`.
LABEL = re.compile(
    r"(?<![A-Za-z])(?:(?P<pool>pair|pool|lp)|wallet|dev|developer|deployer|creator|owner|treasury)"
    r"(?:\s(?:wallet|address|addy|id))?\s*[:=]\s*[`(\[]?$",
    re.IGNORECASE,
)
LONGEST_LABEL = 40  # characters


class Mentioned(NamedTuple):
    """The tokens of a message with their chain, in its order, and why each other address in it is none."""

    tokens: dict[str, str]
    left_out: list[str]


def called_in(text: str, links: Sequence[str] = ()) -> Mentioned:
    """Judge the addresses of a message: its text, and its hidden links and buttons.

    Links in the text count as links. An address that only links to pools, wallets or the paid side of a swap name is no token;
    one that the text or the link of a token names, too, is one.
    """
    if "/" in text:
        links = [*LINK.findall(text), *links]
        text = LINK.sub(" ", text)
    verdicts: dict[str, str] = {}
    for match in CANDIDATE.finditer(text):
        verdict = _labelled(text[max(0, match.start() - LONGEST_LABEL) : match.start()])
        if verdict == TOKEN or match[0] not in verdicts:
            verdicts[match[0]] = verdict
    for link in links:
        for address, verdict in addresses_of(link):
            if verdict == TOKEN or address not in verdicts:
                verdicts[address] = verdict
    tokens: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for address, verdict in verdicts.items():
        mint, chain, reason = _judged(address)
        if verdict in (POOL, WALLET) or (reason is None and verdict != TOKEN):
            reason = verdict
        if reason is None:
            tokens.setdefault(mint, chain)
        else:
            left_out.setdefault(mint, reason)
    if not left_out:
        return Mentioned(tokens, [])
    return Mentioned(tokens, [reason for mint, reason in left_out.items() if mint not in tokens])


def _labelled(before: str) -> str:
    """Return what the words before an address say that it is."""
    if ":" not in before[-8:] and "=" not in before[-8:]:
        return TOKEN
    label = LABEL.search(before)
    return TOKEN if label is None else POOL if label["pool"] else WALLET


@lru_cache(maxsize=1 << 16)
def _judged(address: str) -> tuple[str, str, str | None]:
    """The mint, the chain and what is against it: channels name the same tokens again and again."""
    return folded_mint(address), "evm" if is_evm_address(address) else "solana", against(address)


def against(text: str) -> str | None:
    """Return why a text is no token, whatever is said of it; None for one that may be a token."""
    if is_evm_address(text):
        return _known(text.lower())
    if text.islower() and len(text) >= 40:
        return "lower_cased"  # base58 in which no capital is left; one in 10^10 addresses has none
    if base58_length(text) != 32:
        return "not_an_address"
    if (known := _known(text)) is not None:
        return known
    if "1" * 8 in text:
        return "program"
    if text.isupper() or text.islower() or len(set(text)) < FEWEST_LETTERS:
        return "word"
    return None


def _known(address: str) -> str | None:
    if address in QUOTES:
        return "quote_token"
    return "program" if address in PROGRAMS else None


def is_command(text: str) -> bool:
    """Whether a message asks a bot for something: `/pnl ADDRESS`, `!chart ADDRESS`."""
    return COMMAND.match(text) is not None
