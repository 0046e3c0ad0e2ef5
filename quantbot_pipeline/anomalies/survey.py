"""A month's candles looked at token by token: what each token says alone, and what is kept to compare tokens.

Belongs here: which detectors see which candles. Does not: their rules, or where candles come from.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from quantbot_pipeline.anomalies.duplicates import Print, day_prints, duplicates
from quantbot_pipeline.anomalies.findings import Finding, Series, Span
from quantbot_pipeline.anomalies.flat import flat_lines
from quantbot_pipeline.anomalies.holes import Holes, find_outages, gaps, holes_of, outages
from quantbot_pipeline.anomalies.shifts import Steps, month_steps, time_shifts
from quantbot_pipeline.anomalies.spikes import price_spikes
from quantbot_pipeline.anomalies.units import unit_changes
from quantbot_pipeline.anomalies.volumes import wash_volumes

ALONE = (price_spikes, unit_changes, flat_lines, wash_volumes)


@dataclass
class Survey:
    """What is found in the candles of a month. `add` every token once, in any order; then ask for `findings`."""

    span: Span
    found: list[Finding] = field(default_factory=list)
    holes: list[Holes] = field(default_factory=list)
    prints: dict[str, list[Print]] = field(default_factory=dict)
    steps: dict[str, Steps] = field(default_factory=dict)

    def add(self, candles: Series) -> None:
        """Look at one token: its candles from 7 days before the month on, at least one."""
        for detect in ALONE:
            self.found += detect(candles, self.span)
        self.holes.append(holes_of(candles, self.span))
        if prints := day_prints(candles, self.span):
            self.prints[candles.mint] = prints
        self.steps[candles.mint] = month_steps(candles, self.span)

    def findings(self) -> list[Finding]:
        """Return all findings, in the order of subject, kind and time."""
        return sorted((*self.found, *self._together()), key=lambda f: (f.subject, f.kind, f.from_ts, f.other or ""))

    def _together(self) -> Iterator[Finding]:
        holes = sorted(self.holes, key=lambda own: own.mint)
        found = find_outages(holes, self.span)
        yield from outages(found, self.span)
        for own in holes:
            yield from gaps(own, found, self.span)
        yield from duplicates(self.prints)
        yield from time_shifts(self.steps, self.span)
