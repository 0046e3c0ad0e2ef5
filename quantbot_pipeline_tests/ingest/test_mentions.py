"""Which addresses in a message are tokens that it calls: by their bytes, by their letters, by the links that name them."""

import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from quantbot_pipeline.ingest.chains import SPELLINGS, folded_chain, folded_chain_sql
from quantbot_pipeline.ingest.links import addresses_of
from quantbot_pipeline.ingest.mentions import PROGRAMS, QUOTES, against, called_in, is_command
from quantbot_pipeline_tests.support.builders import base58, solana_address

TOKEN, OTHER, POOL = solana_address(1), solana_address(2), solana_address(3)
EVM = "0xAb5801a7D398351b8bE11C439e05C5B3259aeC9B"
WSOL = "So11111111111111111111111111111111111111112"
USDC = "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v"


@given(st.binary(min_size=20, max_size=40))
def test_only_32_bytes_are_an_address(data: bytes) -> None:
    text = base58(data)
    assume("1" * 8 not in text and 32 <= len(text) <= 44 and len(set(text)) >= 8)
    assume(not text.islower() and not text.isupper())
    assert (against(text) is None) == (len(data) == 32)
    assert (called_in(f"gem {text}!").tokens == {text: "solana"}) == (len(data) == 32)


@given(st.text(alphabet=string.hexdigits, min_size=40, max_size=40))
def test_every_spelling_of_an_evm_address_is_one_token(digits: str) -> None:
    assume("0x" + digits.lower() not in QUOTES | PROGRAMS)
    found = called_in(f"0x{digits} 0x{digits.lower()} 0x{digits.upper()}")
    assert found == ({f"0x{digits.lower()}": "evm"}, [])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t", "not_an_address"),  # Tron
        ("1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "not_an_address"),  # Bitcoin
        ("LFG" + "G" * 33, "not_an_address"),
        ("HA" * 22, "word"),
        ("LOl" * 14 + "LO", "not_an_address"),
        (TOKEN.lower(), "lower_cased"),
        ("ab" * 16, "not_an_address"),  # a checksum in hexadecimal
        (WSOL, "quote_token"),
        (USDC, "quote_token"),
        ("0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2", "quote_token"),
        ("0x" + "0" * 40, "program"),
        ("1" * 32, "program"),
        ("ComputeBudget111111111111111111111111111111", "program"),
        ("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA", "program"),
    ],
)
def test_what_only_looks_like_a_token_is_left_out_with_its_reason(text: str, reason: str) -> None:
    assert called_in(f"look: {text}, wow") == ({}, [reason])


def test_every_quote_and_program_is_an_address_spelled_as_it_is_looked_up() -> None:
    for address in QUOTES | PROGRAMS:
        assert against(address) in ("quote_token", "program"), address
        assert address == (address.lower() if address.startswith("0x") else address)


@pytest.mark.parametrize(
    "link",
    [
        f"https://pump.fun/{TOKEN}", f"https://pump.fun/coin/{TOKEN}", f"pump.fun/coin/{TOKEN}?x=1", f"http://www.pump.fun/{TOKEN}/",
        f"https://gmgn.ai/sol/token/{TOKEN}", f"https://gmgn.ai/sol/token/abcdefgh_{TOKEN}", f"https://solscan.io/token/{TOKEN}",
        f"https://birdeye.so/token/{TOKEN}?chain=solana", f"https://t.me/some_bot?start=15_{TOKEN}", f"https://axiom.trade/t/{TOKEN}/@x",
        f"https://jup.ag/swap/SOL-{TOKEN}", f"https://jup.ag/swap/{WSOL}-{TOKEN}", f"https://jup.ag/swap?sell={WSOL}&buy={TOKEN}",
        f"https://jup.ag/tokens/{TOKEN}", f"https://raydium.io/swap/?inputMint=sol&outputMint={TOKEN}",
        f"https://raydium.io/swap/?inputCurrency={USDC}&outputCurrency={TOKEN}&fixed=in", f"https://neo.bullx.io/terminal?chainId=1&address={TOKEN}",
        f"https://photon-sol.tinyastro.io/en/r/@someone/{TOKEN}", f"https://letsbonk.fun/token/{TOKEN}", f"https://x.com/search?q={TOKEN}",
        f"https://t.me/share/url?url=https%3A%2F%2Fpump.fun%2Fcoin%2F{TOKEN}", f"tg://resolve?domain=bot&start={TOKEN}",
    ],
)  # fmt: skip  # a table: what belongs together stands on one line
def test_a_link_to_a_token_calls_it(link: str) -> None:
    for found in (called_in("Chart", [link]), called_in(f"see {link}\nnow"), called_in(f"[chart]({link})")):
        assert list(found.tokens) == [TOKEN]
        assert set(found.left_out) <= {"quote_token"}


@pytest.mark.parametrize(
    ("link", "reason"),
    [
        (f"https://solscan.io/account/{TOKEN}", "wallet"), (f"https://explorer.solana.com/address/{TOKEN}", "wallet"),
        (f"https://gmgn.ai/sol/address/{TOKEN}", "wallet"), (f"https://etherscan.io/address/{EVM}", "wallet"),
        (f"https://birdeye.so/profile/{TOKEN}?chain=solana", "wallet"), (f"https://dexscreener.com/solana?maker={TOKEN}", "wallet"),
        (f"https://dexscreener.com/solana/{TOKEN}", "pool"), (f"https://dexscreener.com/solana/{TOKEN.lower()}", "pool"),
        (f"https://dexscreener.com/base/{EVM}", "pool"), (f"https://www.dextools.io/app/en/solana/pair-explorer/{TOKEN}", "pool"),
        (f"https://www.defined.fi/sol/{TOKEN}", "pool"), (f"https://photon-sol.tinyastro.io/en/lp/{TOKEN}?h=1", "pool"),
        (f"https://www.geckoterminal.com/solana/pools/{TOKEN}", "pool"), (f"https://axiom.trade/meme/{TOKEN}", "pool"),
        (f"https://jup.ag/swap/{TOKEN}-SOL", "swap_input"), (f"https://jup.ag/swap?sell={TOKEN}", "swap_input"),
        (f"https://t.me/share/url?url=https%3A%2F%2Fdexscreener.com%2Fsolana%2F{TOKEN}", "pool"),
        (f"https://raydium.io/swap/?inputMint={WSOL}&outputMint=sol", "quote_token"),
        (f"https://raydium.io/liquidity/increase/?mode=add&pool_id={TOKEN}", "pool"), (f"https://app.meteora.ag/dammv2/{TOKEN}", "pool"),
        (f"https://raydium.io/clmm/create-position/?pool-id={TOKEN}", "pool"),
    ],
)  # fmt: skip  # a table: what belongs together stands on one line
def test_a_link_to_something_else_calls_nothing(link: str, reason: str) -> None:
    for found in (called_in("Chart", [link]), called_in(f"see {link} now"), called_in(f"[chart]({link})")):
        assert found == ({}, [reason])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"Dev wallet: {TOKEN}", "wallet"), (f"dev: {TOKEN} sold", "wallet"), (f"Deployer:\n{TOKEN}", "wallet"),
        (f"Creator = {TOKEN}", "wallet"), (f"LP: `{TOKEN}`", "pool"), (f"Pair address: {EVM}", "pool"),
    ],
)  # fmt: skip  # a table: what belongs together stands on one line
def test_an_address_that_its_label_calls_a_wallet_or_a_pool_is_no_token(text: str, reason: str) -> None:
    assert called_in(text) == ({}, [reason])
    assert called_in(f"{OTHER} {text}") == ({OTHER: "solana"}, [reason])


@pytest.mark.parametrize("text", ["CA: {}", "Dev sold: {}", "LP burnt. {}", "helper: {}", "wallet: {0} {0}", "x_{}"])
def test_other_labels_are_no_reason_against_a_token(text: str) -> None:
    assert called_in(text.format(TOKEN)).tokens == {TOKEN: "solana"}


def test_what_a_button_copies_or_sends_is_no_link_and_may_be_a_token() -> None:
    assert called_in("Buy", [TOKEN, f"buy_{OTHER}"]).tokens == {TOKEN: "solana", OTHER: "solana"}


def test_an_address_that_the_message_names_elsewhere_is_a_token() -> None:
    links = [f"https://dexscreener.com/solana/{TOKEN}", f"https://solscan.io/account/{TOKEN}"]
    assert called_in(f"CA {TOKEN}", links).tokens == {TOKEN: "solana"}
    assert called_in("", [*links, f"https://pump.fun/{TOKEN}"]).tokens == {TOKEN: "solana"}
    assert called_in("", links).tokens == {}


def test_the_ending_of_a_maker_shows_that_a_pools_page_names_the_token() -> None:
    pumped = next(t for t in (base58(n.to_bytes(32, "big")) for n in _ending("pump")) if len(t) == 44)
    assert called_in(f"https://dexscreener.com/solana/{pumped}").tokens == {pumped: "solana"}


def _ending(suffix: str) -> list[int]:
    """Numbers of 32 bytes whose base58 ends so."""
    digits = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    tail = 0
    for letter in suffix:
        tail = tail * 58 + digits.index(letter)
    step = 58 ** len(suffix)
    start = int.from_bytes(bytes([200, 17, 93] * 10 + [5, 7]), "big")
    return [start - start % step + tail - n * step * 10**60 for n in range(3)]


def test_the_pool_behind_a_token_in_a_path_is_no_token() -> None:
    link = f"https://birdeye.so/token/{TOKEN}/{POOL}?chain=solana"
    assert called_in(link) == ({TOKEN: "solana"}, ["pool"])


@pytest.mark.parametrize(
    "link", ["", "://", "?", "https://", "http://[::1", "%", "%zz", "a" * 10_000, "https://" * 5_000, "x.y/" * 5_000]
)
def test_broken_links_are_no_harm(link: str) -> None:
    assert list(addresses_of(link)) == []
    assert called_in(link, [link]).tokens == {}


def test_a_message_that_begins_with_a_command_is_one() -> None:
    assert all(is_command(text) for text in ("/pnl x", " /chart@bot x", "!pnl x"))
    assert not any(is_command(text) for text in ("gm /pnl", "/", "! x", "50/50", "//x", "pnl"))


def test_spellings_of_a_chain_are_one_word_in_python_and_in_sql() -> None:
    import duckdb

    words = [
        s
        for spellings in SPELLINGS.values()
        for s in (*spellings, *map(str.upper, spellings), *(f" {s} " for s in spellings))
    ]
    words += ["", " ", "Binance", "evm", "it's"]
    values = ", ".join("('" + word.replace("'", "''") + "')" for word in words)
    found = duckdb.execute(f"SELECT w, {folded_chain_sql('w')} FROM (VALUES {values}) t(w)").fetchall()
    assert found == [(word, folded_chain(word)) for word in words]
    assert [folded_chain(w) for w in ("SOL", "Solana", "ERC20", "BNB", "MATIC", "avax", "Binance")] == [
        "solana", "solana", "ethereum", "bsc", "polygon", "avalanche", "Binance",
    ]  # fmt: skip  # a table: what belongs together stands on one line
