"""What the months ahead have confirmed of a model, in a word and in a sentence for whoever decides about money.

Belongs here: the words and the rules that lead to them. Does not: the measures. Source: docs/models.md, "Verdict".
"""

import math

from quantbot_pipeline.models.metrics import Measure
from quantbot_pipeline.vocabulary import (
    BETTER,
    EARNS_MORE,
    MONEY_NOT_SHOWN,
    NO_BETTER_THAN_BASE,
    NO_BETTER_THAN_CALLER,
    TOO_LITTLE_DATA,
)

MIN_MONTHS, MIN_CLASS, MIN_TAKEN, SURE = 3, 30, 30, 2.0

SENTENCES = {
    TOO_LITTLE_DATA: "too few months or outcomes to say anything: treat the number as the base rate",
    NO_BETTER_THAN_BASE: "no better than the base rate: the number knows no more of a call than the share of all calls does",
    NO_BETTER_THAN_CALLER: "no better than the caller's rate: who called says as much as the number does",
    BETTER: "better than the base rate and than the caller's rate, in months that it had not seen",
}
MONEY_SENTENCES = {
    EARNS_MORE: "the calls that it took earned more than all calls did",
    MONEY_NOT_SHOWN: "that its choice of calls earns more is not shown",
}


def verdict(months: int, rarer: int, over_base: Measure, over_caller: Measure) -> str:
    """Return the verdict of the blend to date.

    months: months tested. rarer: outcomes of the rarer class; of `return`, outcomes. A z that is undefined is none.
    """
    if months < MIN_MONTHS or rarer < MIN_CLASS:
        return TOO_LITTLE_DATA
    if not over_base.z >= SURE:
        return NO_BETTER_THAN_BASE
    return BETTER if over_caller.z >= SURE else NO_BETTER_THAN_CALLER


def money_verdict(taken: int, difference: Measure) -> str:
    """Return whether the taken calls are shown to earn more than all: z of at least 2 with 30 of them."""
    return EARNS_MORE if taken >= MIN_TAKEN and difference.z >= SURE else MONEY_NOT_SHOWN


def sentence(verdict: str, money: str | None = None) -> str:
    """Return what a verdict means, in one sentence."""
    said = SENTENCES[verdict]
    return f"{said}; {MONEY_SENTENCES[money]}" if money is not None else said


def number(value: float) -> float | None:
    """Return a measure for a column: null where it is undefined."""
    return None if math.isnan(value) else float(value)
