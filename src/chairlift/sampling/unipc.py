"""UniPC (Zhao et al. 2023) as coefficients.

In the paper's names: ``lambda = log(alpha / sigma)``, a step goes from ``s_0`` to ``t`` over
``h = lambda_t - lambda_s0``, ``m_k`` is the predicted clean latents ``k`` evaluations before
``s_0``, and ``r_k = (lambda_sk - lambda_s0) / h``. Predictor and corrector (UniP-p and UniC-p with
data prediction) are both ::

    x_t = sigma_t / sigma_s0 * x_s0 - alpha_t * (exp(-h) - 1) * m_0
          - alpha_t * B(h) * sum_k rho_k * (m_k - m_0) / r_k

where the corrector's sum goes on to the clean latents predicted at ``t``, whose ``r`` is 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import factorial

import numpy as np

from chairlift.sampling.schedule import Levels, Schedule, Solver

_X, _DENOISED, *_HISTORY = np.eye(5)


def unipc_coefficients(schedule: Schedule, solver: Solver) -> Levels:
    """What the next latents are made of, ``(evaluations, 5)``: of the latents, the predicted clean
    latents, and those of the last three evaluations, newest first.
    """
    alphas = np.append(schedule.alphas, schedule.next_alphas[-1])
    sigmas = np.append(schedule.sigmas, schedule.next_sigmas[-1])
    with np.errstate(divide="ignore"):  # Where sigma is 0, lambda is infinite.
        lambdas = np.log(alphas) - np.log(sigmas)
    rows = []
    predictor = corrector = np.zeros(0)
    for step in range(schedule.evaluations):
        x = _X
        if step > 0 and step - 1 not in solver.uncorrected:
            # The predictor that x comes from and its corrector differ in nothing but the sum.
            m_0, *earlier = _HISTORY
            outputs = [*earlier[: len(predictor)], _DENOISED]
            x = x + alphas[step] * (_sum(predictor, earlier, m_0) - _sum(corrector, outputs, m_0))
        predictor, corrector = _weights(lambdas, step, _order(schedule, step, solver), solver)
        h = lambdas[step + 1] - lambdas[step]
        rows.append(
            sigmas[step + 1] / sigmas[step] * x
            - alphas[step + 1] * np.expm1(-h) * _DENOISED
            - alphas[step + 1] * _sum(predictor, _HISTORY, _DENOISED)
        )
    return np.stack(rows)


def _order(schedule: Schedule, step: int, solver: Solver) -> int:
    """``p`` of one step. Where that ends at ``sigma`` 0, ``h`` is infinite and only the first order
    is defined; without ``lower_order_final`` diffusers' result isn't finite there.
    """
    if schedule.next_sigmas[step] == 0:
        return 1
    order = min(solver.order, step + 1)
    return min(order, schedule.evaluations - step) if solver.lower_order_final else order


def _weights(lambdas: Levels, step: int, order: int, solver: Solver) -> tuple[Levels, Levels]:
    """``B(h) * rho_k / r_k`` of one step's predictor and of its corrector.

    ``sum_k r_k**(n - 1) * B(h) * rho_k = -h * n! * phi_(n + 1)(-h)`` for ``n`` from 1 to the number
    of unknowns, so ``B`` matters only where ``rho`` is fixed at 1/2: for the predictor of order 2
    and the corrector of order 1.
    """
    h = lambdas[step + 1] - lambdas[step]
    b_h = -h if solver.kind == "bh1" else np.expm1(-h)
    if order == 1:
        return np.zeros(0), np.array([b_h / 2])
    earlier = lambdas[step - order + 1 : step][::-1]
    r = np.append((earlier - lambdas[step]) / h, 1.0)
    phi, right = np.expm1(-h) / -h, []
    for n in range(1, order + 1):
        phi = (phi - 1 / factorial(n)) / -h
        right.append(-h * factorial(n) * phi)
    powers = np.vander(r, increasing=True).T
    predictor = np.linalg.solve(powers[:-1, :-1], right[:-1]) if order > 2 else np.array([b_h / 2])
    return predictor / r[:-1], np.linalg.solve(powers, right) / r


def _sum(weights: Levels, outputs: Sequence[Levels], m_0: Levels) -> Levels:
    """``sum_k weights_k * (m_k - m_0)`` over as many outputs as there are weights."""
    total = np.zeros_like(m_0)
    for weight, m_k in zip(weights, outputs, strict=False):
        total += weight * (m_k - m_0)
    return total
