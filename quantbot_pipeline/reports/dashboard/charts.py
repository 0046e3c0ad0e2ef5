"""How the numbers are drawn: one Vega-Lite specification per chart, made with altair, without data.

The page fills in the named data when a chart is shown, so one specification serves every caller and call. Colours are
tokens (`@accent`) that the page replaces by those of the light or the dark theme.
"""

from typing import Any

from quantbot_pipeline.reports.dashboard.model_charts import MODEL_CHARTS
from quantbot_pipeline.reports.page.charts import (
    candle_bars,
    costs,
    data,
    e_months,
    incidence,
    kind_colour,
    minute_axis,
    sized,
    specifications_of,
)

# A symlog scale has no good ticks of its own: coarse ones, and fine ones where everything lies near zero.
_COARSE = [-10_000, -5_000, -2_000, -1_000, 0, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000]
_FINE = [-1_500, -1_000, -500, -200, -100, 0, 100, 200, 500, 1_000, 1_500]
_RETURN_TICKS = f"max(abs(domain('y')[0]), abs(domain('y')[1])) > 2000 ? {_COARSE} : {_FINE}"
_FEASIBLE = "datum.meets_constraints === 'yes'"


def charts() -> dict[str, dict[str, Any]]:
    """{chart: Vega-Lite specification} of the dashboard."""
    return specifications_of(_CHARTS)


def _months(alt: Any) -> Any:
    x = alt.X("month:O", title=None, axis=alt.Axis(labelAngle=0, labelOverlap=True))
    status = alt.Color(
        "what:N",
        scale=alt.Scale(domain=["included", "excluded"], range=["@accent", "@bad"]),
        legend=alt.Legend(title=None, orient="top"),
    )
    bars = alt.Chart(data(alt)).mark_bar().encode(x=x, y=alt.Y("calls:Q", title="calls"), color=status, order="at:Q")
    return sized(bars.encode(tooltip=["month:O", "what:N", "calls:Q"]), 200)


def _histogram(alt: Any) -> Any:
    """Bars: this caller's (or policy's) share per bin; ticks: the share of all, to compare with."""
    x = alt.X("bin:O", sort=None, title=None, axis=alt.Axis(labelAngle=0, labelOverlap=True))
    y = alt.Y("share:Q", title="share of calls", axis=alt.Axis(format="%"))
    tips = [
        alt.Tooltip("bin:O"),
        alt.Tooltip("calls:Q"),
        alt.Tooltip("share:Q", format=".1%"),
        alt.Tooltip("all:Q", format=".1%"),
    ]
    bars = alt.Chart(data(alt)).mark_bar(color="@accent").encode(x=x, y=y, tooltip=tips)
    ticks = alt.Chart(data(alt)).mark_tick(color="@ink", thickness=2, width=alt.RelativeBandSize(0.9))
    return sized(bars + ticks.encode(x=x, y=alt.Y("all:Q"), tooltip=tips), 200)


def _reached(alt: Any) -> Any:
    """Share of calls that had reached a multiple so long after the alert."""
    x = alt.X("minutes:Q", scale=alt.Scale(type="log", nice=False), title="after the alert", axis=minute_axis(alt))
    y = alt.Y("share:Q", title="share of calls", axis=alt.Axis(format="%"), scale=alt.Scale(domainMin=0))
    multiple = alt.Color(
        "what:N",
        scale=alt.Scale(domain=["2x", "3x", "4x", "2x, all callers"], range=["@kind1", "@kind2", "@kind4", "@muted"]),
        legend=alt.Legend(title=None, orient="top"),
    )
    dash = alt.StrokeDash("all:N", scale=alt.Scale(domain=[False, True], range=[[1, 0], [4, 3]]), legend=None)
    tips = ["what:N", "after:N", "calls:Q", alt.Tooltip("share:Q", format=".1%")]
    lines = alt.Chart(data(alt)).mark_line(interpolate="linear", point=alt.OverlayMarkDef(size=26))
    return sized(lines.encode(x=x, y=y, color=multiple, strokeDash=dash, tooltip=tips), 220)


def _hit_months(alt: Any) -> Any:
    """2x rate by month with its interval: wide where the calls are few."""
    x = alt.X("month:O", title=None, axis=alt.Axis(labelAngle=0, labelOverlap=True))
    y = alt.Y("low:Q", title="hit 2x rate", axis=alt.Axis(format="~%"), scale=alt.Scale(domainMin=0))
    tips = [
        "month:O",
        "calls:Q",
        alt.Tooltip("hit_2x_rate:Q", format=".1%"),
        alt.Tooltip("low:Q", format=".1%"),
        alt.Tooltip("high:Q", format=".1%"),
    ]
    rules = (
        alt.Chart(data(alt))
        .mark_rule(color="@accent", strokeWidth=3, opacity=0.4)
        .encode(x=x, y=y, y2="high:Q", tooltip=tips)
    )
    points = alt.Chart(data(alt)).mark_point(color="@accent", filled=True, size=70, opacity=1)
    return sized(rules + points.encode(x=x, y=alt.Y("hit_2x_rate:Q"), tooltip=tips), 200)


def _frontier(alt: Any) -> Any:
    """Every policy of a search; infeasible ones faded, Pareto ones ringed, and the edge nobody beats as a line."""
    x = alt.X(
        "stop_out_rate:Q",
        title="stop out rate",
        axis=alt.Axis(format="%", tickCount=10),
        scale=alt.Scale(padding=8, nice=False),
    )
    y = alt.Y("value:Q", title="return, bps", axis=alt.Axis(format=",d", tickMinStep=1), scale=alt.Scale(zero=False))
    tips = [
        alt.Tooltip("words:N", title="policy"),
        alt.Tooltip("policy_id:N"),
        alt.Tooltip("rank:Q"),
        alt.Tooltip("meets_constraints:N"),
        alt.Tooltip("violations:N"),
        alt.Tooltip("is_pareto:N"),
        alt.Tooltip("avg_return_bps:Q", format=",d"),
        alt.Tooltip("median_return_bps:Q", format=",d"),
        alt.Tooltip("stop_out_rate:Q", format=".1%"),
        alt.Tooltip("p95_drawdown_bps:Q", format=",d"),
        alt.Tooltip("objective_score:Q", format=",d"),
    ]
    line = alt.Chart(data(alt, "edge")).mark_line(interpolate="step-after", color="@ink", strokeWidth=1.2)
    points = alt.Chart(data(alt)).mark_point(filled=True, strokeWidth=1.4, size=46)
    opacity = alt.condition(_FEASIBLE, alt.value(0.95), alt.value(0.22))
    ring = alt.condition("datum.is_pareto == 'yes'", alt.value("@ink"), alt.value("transparent"))
    drawn = points.encode(x=x, y=y, color=kind_colour(alt), opacity=opacity, stroke=ring, tooltip=tips)
    return sized(line.encode(x=x, y=y) + drawn, 340)


def _best(alt: Any) -> Any:
    """The best policy of each caller: what it returned and how often it was stopped out."""
    x = alt.X(
        "stop_out_rate:Q",
        title="stop out rate",
        axis=alt.Axis(format="%", tickCount=10),
        scale=alt.Scale(padding=14, nice=False),
    )
    y = alt.Y(
        "value:Q",
        title="return, bps",
        axis=alt.Axis(format=",d", values=alt.ExprRef(_RETURN_TICKS), labelOverlap=True),
        scale=alt.Scale(type="symlog", constant=1000, padding=14),
    )
    tips = [
        alt.Tooltip("caller_name:N"),
        alt.Tooltip("words:N", title="policy"),
        alt.Tooltip("trades:Q"),
        alt.Tooltip("meets_constraints:N"),
        alt.Tooltip("violations:N"),
        alt.Tooltip("avg_return_bps:Q", format=",.1f"),
        alt.Tooltip("median_return_bps:Q", format=",.1f"),
        alt.Tooltip("stop_out_rate:Q", format=".1%"),
        alt.Tooltip("p95_drawdown_bps:Q", format=",.1f"),
    ]
    points = alt.Chart(data(alt)).mark_point(filled=True, cursor="pointer")
    opacity = alt.condition(_FEASIBLE, alt.value(0.95), alt.value(0.3))
    size = alt.Size("trades:Q", scale=alt.Scale(range=[40, 500], domainMin=0), legend=None)
    dots = points.encode(x=x, y=y, color=kind_colour(alt), opacity=opacity, size=size, tooltip=tips)
    names = alt.Chart(data(alt)).mark_text(align="left", dx=9, fontSize=11, color="@soft", limit=170)
    return sized(dots + names.encode(x=x, y=y, text="named:N"), 380)


def _pair_colour(alt: Any) -> Any:
    return alt.Color("which:N", scale=alt.Scale(domain=["A", "B"], range=["@kind1", "@kind2"]), legend=None)


def _policy_months(alt: Any) -> Any:
    x = alt.X("month:O", title=None, axis=alt.Axis(labelAngle=0, labelOverlap=True))
    y = alt.Y("value:Q", title="median return, bps", axis=alt.Axis(format=",d"))
    tips = [
        "which:N",
        "words:N",
        "month:O",
        alt.Tooltip("value:Q", title="median_return_bps", format=",.1f"),
        "trades:Q",
    ]
    lines = alt.Chart(data(alt)).mark_line(point=alt.OverlayMarkDef(size=50))
    return sized(lines.encode(x=x, y=y, color=_pair_colour(alt), detail="stretch:N", tooltip=tips), 220)


def _policy_returns(alt: Any) -> Any:
    x = alt.X("bin:O", sort=None, title="realized return, %", axis=alt.Axis(labelAngle=-45, labelOverlap=False))
    y = alt.Y("share:Q", title="share of trades", axis=alt.Axis(format="%"))
    tips = ["which:N", "words:N", "bin:O", "trades:Q", alt.Tooltip("share:Q", format=".1%")]
    bars = alt.Chart(data(alt)).mark_bar()
    return sized(bars.encode(x=x, y=y, xOffset="which:N", color=_pair_colour(alt), tooltip=tips), 220)


def _walk_callers(alt: Any) -> Any:
    """What the past promised against what followed; on the diagonal the promise was kept."""
    x = alt.X("inside:Q", title="in sample, bps", axis=alt.Axis(format=",d"))
    y = alt.Y("outside:Q", title="out of sample, bps", axis=alt.Axis(format=",d"))
    tips = [
        "caller_name:N",
        "scheme:N",
        alt.Tooltip("trades:Q", title="out_of_sample_trades"),
        alt.Tooltip("inside:Q", title="in sample", format=",.1f"),
        alt.Tooltip("outside:Q", title="out of sample", format=",.1f"),
    ]
    colour = alt.Color(
        "scheme:N",
        scale=alt.Scale(domain=["anchored", "rolling"], range=["@kind1", "@kind2"]),
        legend=alt.Legend(title=None, orient="top"),
    )
    diagonal = alt.Chart(data(alt, "diagonal")).mark_line(color="@muted", strokeDash=[4, 4]).encode(x=x, y=y)
    zero = alt.Chart(data(alt, "zero")).mark_rule(color="@muted").encode(y="y:Q")
    size = alt.Size("trades:Q", scale=alt.Scale(range=[30, 500], domainMin=0), legend=None)
    points = alt.Chart(data(alt)).mark_point(filled=True, cursor="pointer")
    opacity = alt.condition("datum.few", alt.value(0.3), alt.value(0.8))
    return sized(zero + diagonal + points.encode(x=x, y=y, color=colour, size=size, opacity=opacity, tooltip=tips), 340)


def _walk_months(alt: Any) -> Any:
    x = alt.X("month:O", title=None, axis=alt.Axis(labelAngle=0, labelOverlap=True))
    y = alt.Y("value:Q", title="average return, bps", axis=alt.Axis(format=",d"))
    names = ["in sample", "out of sample", "hold"]
    colour = alt.Color(
        "what:N",
        scale=alt.Scale(domain=names, range=["@muted", "@kind1", "@kind2"]),
        legend=alt.Legend(title=None, orient="top"),
    )
    tips = ["month:O", "what:N", alt.Tooltip("value:Q", format=",.1f"), "trades:Q"]
    lines = alt.Chart(data(alt)).mark_line(point=alt.OverlayMarkDef(size=40))
    return sized(lines.encode(x=x, y=y, color=colour, detail="stretch:N", tooltip=tips), 240)


def _equity(alt: Any) -> Any:
    """Equity of the V1 accounts: the grouped account and single callers."""
    x = alt.X("days:Q", title="days since the month's first entry")
    y = alt.Y("equity:Q", title="equity", axis=alt.Axis(format=",d", tickMinStep=1), scale=alt.Scale(zero=False))
    palette = [f"@line{i + 1}" for i in range(9)]
    colour = alt.Color(
        "name:N", sort=None, scale=alt.Scale(range=palette), legend=alt.Legend(title=None, orient="bottom")
    )
    lines = alt.Chart(data(alt)).mark_line(interpolate="step-after", strokeWidth=1.8)
    start = alt.Chart(data(alt, "start")).mark_rule(color="@muted", strokeDash=[4, 4]).encode(y="equity:Q")
    tips = ["name:N", alt.Tooltip("days:Q", format=".1f"), alt.Tooltip("equity:Q", format=",.2f")]
    return sized(start + lines.encode(x=x, y=y, color=colour, tooltip=tips), 320)


def _finals(alt: Any) -> Any:
    """What each month's V1 account ended with, as a stem from the capital it began with."""
    x = alt.X("month:O", title=None, axis=alt.Axis(labelAngle=0, labelOverlap=True))
    y = alt.Y("final_capital:Q", title="final capital", axis=alt.Axis(format=",d"), scale=alt.Scale(zero=False))
    colour = alt.condition("datum.final_capital >= datum.start", alt.value("@good"), alt.value("@bad"))
    tips = ["month:O", alt.Tooltip("final_capital:Q", format=",.2f"), "trades:Q"]
    stems = alt.Chart(data(alt)).mark_rule(strokeWidth=2).encode(x=x, y=y, y2="start:Q", color=colour, tooltip=tips)
    dots = alt.Chart(data(alt)).mark_point(filled=True, size=36, opacity=1).encode(x=x, y=y, color=colour, tooltip=tips)
    return sized(stems + dots, 220)


def _candles(alt: Any) -> Any:
    """A call's window in multiples of the entry price, with levels of one policy and the exits of all."""
    bars = candle_bars(alt, "hours since the entry", "multiple of the entry price")
    levels = alt.Chart(data(alt, "levels"))
    rules = levels.mark_rule(strokeDash=[5, 4], strokeWidth=1.2, color="@ink", opacity=0.7).encode(y="multiple:Q")
    place = {"x": "beside:Q", "y": "multiple:Q", "text": "label:N"}
    at = {"align": "left", "dx": 4, "dy": 0, "fontSize": 11, "baseline": "middle"}
    # Twice, the first time as a halo: the words stay readable over candles.
    halo = levels.mark_text(**at, stroke="@surface", strokeWidth=4, strokeJoin="round").encode(**place)
    # The words stand to the right of the candles, in room that invisible points keep free.
    room = levels.mark_point(opacity=0).encode(x="room:Q", y="multiple:Q")
    texts = room + halo + levels.mark_text(**at, color="@ink").encode(**place)
    exits = alt.Chart(data(alt, "exits")).mark_point(
        filled=True, size=90, stroke="@surface", strokeWidth=1.2, opacity=1
    )
    exit_tips = [
        "words:N",
        "exit_reason:N",
        alt.Tooltip("exit_multiple:Q", format=".3f"),
        alt.Tooltip("realized_return_bps:Q", format=",.1f"),
    ]
    marked = exits.encode(
        x="hours:Q",
        y="exit_multiple:Q",
        color=kind_colour(alt),
        shape=alt.Shape("mark:N", scale=None),
        tooltip=exit_tips,
    )
    entry = alt.Chart(data(alt, "entry")).mark_rule(color="@accent", strokeWidth=1.5).encode(x="hours:Q")
    return sized(bars + rules + entry + texts + marked, 380)


_CHARTS = (
    _months,
    _histogram,
    _reached,
    _hit_months,
    e_months,
    incidence,
    costs,
    _frontier,
    _best,
    _policy_months,
    _policy_returns,
    _walk_callers,
    _walk_months,
    _equity,
    _finals,
    _candles,
    *MODEL_CHARTS,
)
