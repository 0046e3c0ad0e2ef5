"""How much each member counts: weights from its own predictions of calls that it had not seen, pulled towards 0.

Without evidence for a member its weight is 0, and the prediction is the base rate. Source: docs/models.md, "Blend".
"""

import numpy as np

from quantbot_pipeline.models.numbers import FAR, Floats

MAX_WEIGHT = 1.5
PULL_SD = 0.5
MEMBERS = 3


def weights_of_logits(outcomes: Floats, base: Floats, members: Floats) -> Floats:
    """Return the weights of most likely outcomes under the pull, each in [0, 1.5]; shape (3,).

    outcomes: (C,) of 0 and 1. base: logits (C,). members: distances (C, 3).
    """
    from scipy.optimize import minimize

    if not len(outcomes):
        return np.zeros(MEMBERS)

    def cost(weights: Floats) -> tuple[float, Floats]:
        z = base + members @ weights
        p = 1.0 / (1.0 + np.exp(-np.clip(z, -FAR, FAR)))
        value = np.logaddexp(0.0, z).sum() - (outcomes * z).sum() + (weights**2).sum() / (2 * PULL_SD**2)
        return float(value), members.T @ (p - outcomes) + weights / PULL_SD**2

    return _bounded(
        minimize(
            cost,
            np.zeros(MEMBERS),
            jac=True,
            method="L-BFGS-B",
            bounds=[(0.0, MAX_WEIGHT)] * MEMBERS,
            options={"ftol": 1e-13, "gtol": 1e-9, "maxiter": 500},
        ).x
    )


def weights_of_amounts(outcomes: Floats, base: Floats, members: Floats) -> Floats:
    """Return the same for amounts: ridge least squares, each weight in [0, 1.5]; outcomes and base as fractions."""
    from scipy.optimize import lsq_linear

    rest = outcomes - base
    if not len(outcomes) or not rest.any() or not members.any():
        return np.zeros(MEMBERS)
    pull = np.sqrt((rest**2).mean()) / PULL_SD  # the pull of a Gaussian likelihood with the deviation of the rest
    design = np.vstack([members, pull * np.eye(MEMBERS)])
    found = lsq_linear(design, np.concatenate([rest, np.zeros(MEMBERS)]), bounds=(0.0, MAX_WEIGHT), method="bvls")
    return _bounded(found.x)


def _bounded(weights: Floats) -> Floats:
    weights = np.clip(weights, 0.0, MAX_WEIGHT)
    return np.where(weights < 1e-9, 0.0, weights)
