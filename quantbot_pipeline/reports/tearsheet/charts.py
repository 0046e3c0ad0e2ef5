"""The charts of the tear sheet, as Vega-Lite specifications without data; what it shares with the dashboard is in `page.charts`."""

from typing import Any

from quantbot_pipeline.reports.page.charts import coloured, costs, data, e_months, incidence, sized, specifications_of


def charts() -> dict[str, dict[str, Any]]:
    """{chart: Vega-Lite specification} of the tear sheet."""
    return specifications_of((_growth, _under_water, _sums, _returns, e_months, incidence, costs))


def _time(alt: Any) -> Any:
    return alt.X("day:T", title=None, axis=alt.Axis(labelOverlap=True, format="%Y-%m-%d", tickCount=6))


def _growth(alt: Any) -> Any:
    """Equity of the account, and the band that luck allows."""
    tips = [
        alt.Tooltip("day:T", format="%Y-%m-%d"),
        *(alt.Tooltip(f"{name}:Q", format=".4f") for name in ("equity", "low", "high")),
    ]
    y = alt.Y(
        "equity:Q",
        title="what 1 became",
        scale=alt.Scale(type="log", nice=False, padding=8),
        axis=alt.Axis(format="~g"),
    )
    band = alt.Chart(data(alt)).mark_area(color="@accent", opacity=0.16)
    even = alt.Chart(data(alt, "even")).mark_rule(color="@muted", strokeDash=[4, 4]).encode(y="equity:Q")
    line = alt.Chart(data(alt)).mark_line(color="@accent", interpolate="step-after", strokeWidth=1.8)
    x = _time(alt)
    return sized(band.encode(x=x, y=alt.Y("low:Q"), y2="high:Q") + even + line.encode(x=x, y=y, tooltip=tips), 300)


def _under_water(alt: Any) -> Any:
    """How far the equity lies below its highest."""
    y = alt.Y("drawdown:Q", title="below the highest", axis=alt.Axis(format=".0%"))
    tips = [alt.Tooltip("day:T", format="%Y-%m-%d"), alt.Tooltip("drawdown:Q", format=".1%")]
    area = alt.Chart(data(alt)).mark_area(color="@bad", opacity=0.35, interpolate="step-after", line={"color": "@bad"})
    return sized(area.encode(x=_time(alt), y=y, tooltip=tips), 140)


def _sums(alt: Any) -> Any:
    """Returns added up, one stake a trade: the choice, holding, and as many random calls."""
    x = alt.X("month:O", title=None, axis=alt.Axis(labelAngle=0, labelOverlap=True))
    y = alt.Y("value:Q", title="sum of returns, stakes", axis=alt.Axis(format=",.3~r"))
    tips = ["month:O", "what:N", alt.Tooltip("value:Q", format=",.2f"), "trades:Q"]
    band = alt.Chart(data(alt, "band")).mark_area(color="@muted", opacity=0.2)
    colour = coloured(alt, {"traded": "@kind1", "held": "@kind2", "random calls": "@muted"})
    lines = alt.Chart(data(alt)).mark_line(point=alt.OverlayMarkDef(size=30))
    drawn = lines.encode(x=x, y=y, color=colour, tooltip=tips)
    return sized(band.encode(x=x, y=alt.Y("low:Q"), y2="high:Q") + drawn, 240)


def _returns(alt: Any) -> Any:
    """How the returns lie, on an axis of doublings; losses and gains in their colours."""
    x = alt.X(
        "low:Q",
        title="return of a trade (equal steps of growth)",
        axis=alt.Axis(labelExpr="format(pow(2, datum.value) - 1, '+.0%')", labelOverlap=True),
        scale=alt.Scale(nice=False),
    )
    y = alt.Y("trades:Q", title="trades", axis=alt.Axis(tickMinStep=1, format="d"))
    tips = ["return:N", "trades:Q", alt.Tooltip("share:Q", format=".1%")]
    colour = alt.condition("datum.low >= -0.001", alt.value("@good"), alt.value("@bad"))
    bars = alt.Chart(data(alt)).mark_bar(stroke="@surface", strokeWidth=1)
    return sized(bars.encode(x=x, x2="high:Q", y=y, y2=alt.datum(0), color=colour, tooltip=tips), 220)
