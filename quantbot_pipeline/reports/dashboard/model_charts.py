"""How predictions and anomalies are drawn: Vega-Lite specifications as in `charts.py`."""

from typing import Any

from quantbot_pipeline.reports.page.charts import candle_bars, coloured, data, sized


def _month_axis(alt: Any) -> Any:
    return alt.X("month:O", title=None, axis=alt.Axis(labelAngle=0, labelOverlap=True))


def _gain_months(alt: Any) -> Any:
    """The gain over the base rate to date with its band, month by month; at 0 a model knows nothing."""
    x = _month_axis(alt)
    y = alt.Y("low:Q", title="gain over the base rate", axis=alt.Axis(format="~%"))
    tips = ["month:O", "verdict:N", "calls:Q", alt.Tooltip("gain:Q", format="+.1%")]
    tips += [alt.Tooltip(f"{name}:Q", format="+.1%") for name in ("low", "high")]
    tips += [alt.Tooltip("gain_over_base_z:Q", title="z", format=".1f")]
    even = alt.Chart(data(alt, "even")).mark_rule(color="@muted").encode(y="gain:Q")
    band = alt.Chart(data(alt)).mark_rule(color="@accent", strokeWidth=4, opacity=0.3)
    line = alt.Chart(data(alt)).mark_line(color="@accent", point=alt.OverlayMarkDef(size=60, color="@accent"))
    drawn = line.encode(x=x, y=alt.Y("gain:Q"), detail="stretch:N", tooltip=tips)
    return sized(even + band.encode(x=x, y=y, y2="high:Q", tooltip=tips) + drawn, 240)


def _calibration(alt: Any) -> Any:
    """What was predicted against what came, in up to ten bins; on the diagonal a chance of 30 % comes 30 times of 100."""
    x = alt.X("predicted:Q", title="predicted", axis=alt.Axis(format="~%"))
    y = alt.Y("low:Q", title="observed", axis=alt.Axis(format="~%"))
    tips = ["calls:Q", *(alt.Tooltip(f"{name}:Q", format=".1%") for name in ("predicted", "observed", "low", "high"))]
    diagonal = alt.Chart(data(alt, "diagonal")).mark_line(color="@muted", strokeDash=[4, 4])
    rules = alt.Chart(data(alt)).mark_rule(color="@accent", strokeWidth=3, opacity=0.4)
    points = alt.Chart(data(alt)).mark_point(color="@accent", filled=True, size=70, opacity=1)
    return sized(
        diagonal.encode(x=x, y=alt.Y("observed:Q"))
        + rules.encode(x=x, y=y, y2="high:Q", tooltip=tips)
        + points.encode(x=x, y=alt.Y("observed:Q"), tooltip=tips),
        240,
    )


def _lines(alt: Any, title: str, colours: dict[str, str], **axis: Any) -> Any:
    """Lines by month, one for each of `what`."""
    tips = ["month:O", "what:N", alt.Tooltip("value:Q", format=",.4~r")]
    lines = alt.Chart(data(alt)).mark_line(point=alt.OverlayMarkDef(size=50))
    drawn = lines.encode(
        x=_month_axis(alt),
        y=alt.Y("value:Q", title=title, axis=alt.Axis(**axis)),
        color=coloured(alt, colours),
        detail="stretch:N",
        tooltip=tips,
    )
    return sized(alt.Chart(data(alt, "even")).mark_rule(color="@muted").encode(y="value:Q") + drawn, 240)


def _money_months(alt: Any) -> Any:
    return _lines(alt, "mean return to date, bps", {"taken": "@accent", "all calls": "@kind2"}, format=",d")


def _weight_months(alt: Any) -> Any:
    return _lines(alt, "weight", {"caller": "@kind2", "linear": "@kind3", "boosting": "@kind1"}, tickCount=5)


def _importance(alt: Any) -> Any:
    """How much the loss grows when a feature, or a whole group, is shuffled among the calls."""
    y = alt.Y("name:N", sort=None, title=None, axis=alt.Axis(labelLimit=180))
    x = alt.X("loss_increase:Q", title="growth of the loss when shuffled")
    colour = coloured(alt, {"feature": "@accent", "whole group": "@kind2"})
    tips = [
        "name:N",
        "group:N",
        alt.Tooltip("loss_increase:Q", format=".4f"),
        alt.Tooltip("z:Q", format=".1f"),
        "calls:Q",
    ]
    return sized(alt.Chart(data(alt)).mark_bar().encode(x=x, y=y, color=colour, tooltip=tips), 340)


def _dependence(alt: Any) -> Any:
    """The mean prediction at levels of one feature."""
    x = alt.X("at:Q", title="value of the feature", scale=alt.Scale(zero=False, nice=False))
    y = alt.Y("value:Q", title="mean prediction", scale=alt.Scale(zero=False))
    tips = [alt.Tooltip("at:Q", format=".4~g"), alt.Tooltip("value:Q", format=".4f")]
    lines = alt.Chart(data(alt)).mark_line(color="@accent", point=alt.OverlayMarkDef(size=26, color="@accent"))
    return sized(lines.encode(x=x, y=y, tooltip=tips), 240)


def _odd_candles(alt: Any) -> Any:
    """Candles around a finding, whose time is shaded."""
    shade = alt.Chart(data(alt, "span")).mark_rect(color="@bad", opacity=0.12).encode(x="from:Q", x2="to:Q")
    begin = alt.Chart(data(alt, "span")).mark_rule(color="@bad", strokeDash=[5, 4]).encode(x="from:Q")
    return sized(shade + begin + candle_bars(alt, "hours since its begin", "multiple of the first price shown"), 340)


MODEL_CHARTS = (
    _gain_months, _calibration, _money_months, _weight_months, _importance, _dependence, _odd_candles,
)  # fmt: skip  # a table: what belongs together stands on one line
