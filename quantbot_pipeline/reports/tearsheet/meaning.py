"""Every figure of the tear sheet: its name, what it is called, its unit, where it stands, what it means.

The page, the frame and docs/tearsheet.md read this table.
"""

from typing import NamedTuple


class Figure(NamedTuple):
    """unit: bps, rate (a fraction shown in percent), ratio, count, ms, days."""

    name: str
    label: str
    unit: str
    group: str
    meaning: str


ACCOUNT, TRADES, EXPOSURE, BESIDE = "Account", "Trades", "Exposure", "Beside it"
FIGURES = tuple(
    Figure(*row)
    for row in (
        ("total_return", "total return", "rate", ACCOUNT, "What an account that stakes 4 % of its cash on every trade gained. Open trades stand at what was paid for them."),
        ("max_drawdown", "deepest drawdown", "rate", ACCOUNT, "How far its equity at the end of a UTC day fell below its highest before, its beginning included."),
        ("longest_drawdown_days", "longest drawdown", "days", ACCOUNT, "Most days in a row below an earlier high."),
        ("months", "months", "count", ACCOUNT, "Calendar months from the first to the last of the sheet, those without a trade included. A close after the last month counts in it."),
        ("sharpe", "Sharpe of monthly returns", "ratio", ACCOUNT, "Mean over standard deviation (n - 1) of the account's monthly returns, times √12, no risk-free rate. Needs two months."),
        ("sortino", "Sortino of monthly returns", "ratio", ACCOUNT, "The same mean over the root of the mean square of the months below 0, times √12. Needs two months and a losing one."),
        ("volatility", "volatility, yearly", "rate", ACCOUNT, "Standard deviation (n - 1) of the monthly returns, times √12."),
        ("cagr", "yearly return", "rate", ACCOUNT, "The account's growth, per twelve months. Only from twelve months on."),
        ("trades", "trades", "count", TRADES, "Calls that were bought."),
        ("expectancy_bps", "expectancy a trade", "bps", TRADES, "Mean realized return of all trades after costs. Of a walk-forward it is out_of_sample_avg_bps of `quantbot walk-forward`."),
        ("expectancy_low_bps", "its 95 %, low", "bps", TRADES, "The mean less 1.96 standard errors, made over the UTC days of the entries. Needs two days. It holds for one look."),
        ("expectancy_high_bps", "its 95 %, high", "bps", TRADES, "The mean plus 1.96 such errors."),
        ("median_return_bps", "median return", "bps", TRADES, "Half of the trades returned less."),
        ("win_rate", "win rate", "rate", TRADES, "Trades above 0 among those that are not 0."),
        ("avg_win_bps", "average win", "bps", TRADES, "Mean of the trades above 0."),
        ("avg_loss_bps", "average loss", "bps", TRADES, "Mean of the trades below 0."),
        ("payoff_ratio", "payoff ratio", "ratio", TRADES, "Average win over average loss, without its sign."),
        ("profit_factor", "profit factor", "ratio", TRADES, "Sum of the wins over the sum of the losses, without its sign; every trade counts alike."),
        ("es95_bps", "worst twentieth", "bps", TRADES, "Mean of the worst n/20 returns, at least one (expected shortfall)."),
        ("tail_ratio", "tail ratio", "ratio", TRADES, "95th percentile over 5th percentile of the returns, without its sign."),
        ("skew", "skew", "ratio", TRADES, "Adjusted skewness of the returns. Large: few trades carry the sheet."),
        ("without_best_bps", "expectancy without the best", "bps", TRADES, "The mean when the one best trade is left out."),
        ("best_share", "share of the best twentieth", "rate", TRADES, "What the best n/20 trades, at least one, are of all wins."),
        ("data_end_share", "ended with the data", "rate", TRADES, "Trades that end because the data end before the window does. Such a token could hardly be sold."),
        ("stressed_avg_return_bps", "expectancy, such trades lost", "bps", TRADES, "The mean with them taken as a total loss."),
        ("exposure_share", "time in the market", "rate", EXPOSURE, "Share of the time from the first entry to the last exit with an open trade."),
        ("mean_open", "open at once, mean", "ratio", EXPOSURE, "Open trades over that time, on average."),
        ("most_open", "open at once, most", "count", EXPOSURE, "The most that were open together."),
        ("avg_time_exposed_ms", "time in a trade", "ms", EXPOSURE, "Mean time from entry to exit."),
        ("hold_avg_bps", "holding", "bps", BESIDE, "Mean return of the same months' calls held to the horizon, as `quantbot walk-forward` shows it."),
        ("pooled_avg_bps", "pooled choice", "bps", BESIDE, "Mean return of the same calls with the policy that all callers' calls chose."),
        ("random_avg_bps", "random calls", "bps", BESIDE, "Mean return, in the median of 1,000 draws, of as many calls of each month drawn at random from all callers' (with the pooled choice; of a policy: with the same policy)."),
        ("beats_random", "random draws that earned less", "rate", BESIDE, "Share of those draws with a smaller sum of returns. Near 100 %: the choice of calls mattered. It is no verdict."),
    )
)  # fmt: skip  # a table: what belongs together stands on one line
BY_NAME = {figure.name: figure for figure in FIGURES}
