"""Charts that more than one page draws, and what all specifications share: one Vega-Lite specification each, without data.

The page fills in the named data when a chart is shown. Colours are tokens (`@accent`) that the page replaces by those of the
light or the dark theme.
"""

from collections.abc import Callable, Iterable
from typing import Any

from quantbot_pipeline.replay import policies

DASHES = [[1, 0], [4, 3]]
KINDS = (*policies.KINDS, "v1", "unknown")


def specifications_of(builders: Iterable[Callable[[Any], Any]]) -> dict[str, dict[str, Any]]:
    """{chart: Vega-Lite specification} of functions that take altair and return a chart; they name it."""
    import altair as alt

    # Without a theme: colours, fonts and sizes come from the page, which knows light from dark.
    with alt.theme.enable("none"):
        return {build.__name__.strip("_"): _plain(build(alt).to_dict()) for build in builders}


def _plain(spec: dict[str, Any]) -> dict[str, Any]:
    spec.pop("$schema", None)  # an address nobody asks; a page that opens from disk should not hold it
    spec.pop("config", None)
    return spec


def data(alt: Any, name: str = "rows") -> Any:
    return alt.NamedData(name=name)


def sized(chart: Any, height: int = 260) -> Any:
    return chart.properties(width="container", height=height)


def kind_colour(alt: Any) -> Any:
    tokens = [f"@kind{i + 1}" for i in range(len(KINDS))]
    return alt.Color("kind:N", scale=alt.Scale(domain=list(KINDS), range=tokens), legend=None)


def minute_axis(alt: Any) -> Any:
    label = "datum.value < 60 ? datum.value + ' min' : datum.value / 60 + ' h'"
    return alt.Axis(values=[5, 15, 60, 240, 720, 2880, 11520, 46080], labelExpr=label, labelOverlap=True)


def coloured(alt: Any, colours: dict[str, str]) -> Any:
    scale = alt.Scale(domain=list(colours), range=list(colours.values()))
    return alt.Color("what:N", scale=scale, legend=alt.Legend(title=None, orient="top"))


def e_months(alt: Any) -> Any:
    """A caller's e-value by month against the threshold of the claim; the axis is logarithmic."""
    x = alt.X("month:O", title=None, axis=alt.Axis(labelAngle=0, labelOverlap=True))
    y = alt.Y(
        "value:Q",
        title="e-value",
        scale=alt.Scale(type="log", nice=False, padding=10),
        axis=alt.Axis(format="~g", tickCount=5, labelOverlap=True),
    )
    tips = ["month:O", "what:N", alt.Tooltip("exact:Q", title="value", format=",.4g"), "verdict:N"]
    even = alt.Chart(data(alt, "even")).mark_rule(color="@muted").encode(y="value:Q")
    lines = alt.Chart(data(alt)).mark_line(point=alt.OverlayMarkDef(size=50))
    return sized(
        even
        + lines.encode(
            x=x,
            y=y,
            color=coloured(alt, {"e-value": "@accent", "threshold": "@bad"}),
            strokeDash=alt.StrokeDash("limit:N", scale=alt.Scale(domain=[False, True], range=DASHES), legend=None),
            detail="stretch:N",
            tooltip=tips,
        ),
        220,
    )


def incidence(alt: Any) -> Any:
    """Shares of calls that doubled, were stopped or fell silent, so long after the entry; doubles with their interval."""
    x = alt.X("minutes:Q", scale=alt.Scale(type="log", nice=False), title="after the entry", axis=minute_axis(alt))
    y = alt.Y("share:Q", title="share of calls", axis=alt.Axis(format="%"), scale=alt.Scale(domainMin=0))
    tips = ["what:N", "after:N", *(alt.Tooltip(f"{name}:Q", format=".1%") for name in ("share", "low", "high"))]
    colour = coloured(alt, {"2x": "@good", "stop": "@bad", "silent": "@muted"})
    band = alt.Chart(data(alt, "band")).mark_area(color="@good", opacity=0.15)
    lines = alt.Chart(data(alt)).mark_line(point=alt.OverlayMarkDef(size=26))
    drawn = lines.encode(x=x, y=y, color=colour, tooltip=[*tips, "at_risk:Q"])
    return sized(band.encode(x=x, y=alt.Y("low:Q"), y2="high:Q") + drawn, 220)


def costs(alt: Any) -> Any:
    """The mean return of the monthly choice at each size or delay, with two standard errors on both sides."""
    x = alt.X("at:O", sort=None, title=None, axis=alt.Axis(labelAngle=0, labelOverlap=True))
    y = alt.Y("mean_bps:Q", title="mean return, bps", axis=alt.Axis(format=",d"))
    tips = [
        alt.Tooltip("at:O", title="at"),
        alt.Tooltip("mean_bps:Q", format=",.1f"),
        alt.Tooltip("se_bps:Q", format=",.1f"),
        "units:Q",
        alt.Tooltip("same_entry:Q", format=".0%"),
    ]
    even = alt.Chart(data(alt, "even")).mark_rule(color="@muted").encode(y="mean_bps:Q")
    errors = alt.Chart(data(alt)).mark_rule(color="@accent", strokeWidth=3, opacity=0.3)
    lines = alt.Chart(data(alt)).mark_line(color="@accent", point=alt.OverlayMarkDef(size=50, color="@accent"))
    return sized(even + errors.encode(x=x, y=alt.Y("low:Q"), y2="high:Q") + lines.encode(x=x, y=y, tooltip=tips), 200)


def candle_bars(alt: Any, x_title: str, y_title: str) -> Any:
    """Candles from `start` to `end`, in multiples of a price; the axis of prices is logarithmic."""
    x = alt.X("start:Q", title=x_title, scale=alt.Scale(nice=False))
    y = alt.Y("low:Q", title=y_title, scale=alt.Scale(type="log", nice=False))
    colour = alt.condition("datum.close >= datum.open", alt.value("@good"), alt.value("@bad"))
    tips = [alt.Tooltip("start:Q", title="hours", format=".2f")]
    tips += [alt.Tooltip(f"{name}:Q", format=".4~f") for name in ("open", "high", "low", "close")]
    candles = alt.Chart(data(alt))
    wicks = candles.mark_rule().encode(x=alt.X("middle:Q"), y=y, y2="high:Q", color=colour, tooltip=tips)
    bodies = candles.mark_bar(stroke=None).encode(x=x, x2="end:Q", y="open:Q", y2="close:Q", color=colour, tooltip=tips)
    return wicks + bodies
