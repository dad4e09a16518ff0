"""Writes golden_difference.json: the evidence of engine::difference, by another way than the engine's.
Run as: python3 golden_difference.py > golden_difference.json

A bet on the rates (q_g, q_l) pays its likelihood ratio against that pair (b + d, b) of the null which
is nearest to it in Kullback-Leibler divergence, as Poisson counts at the look's exposures; b is found
by scipy's root finder. Which bet is made is golden_wager.py's forecast.
"""
import json
import numpy as np
from scipy import optimize, stats
from golden_wager import EFFECTS, Limit, Ratio


def pay(xg, ng, xl, nl, qg, ql, d):
    if qg <= ql + d:
        return 0.0

    def slope(b):  # of the divergence of (qg, ql) from (b + d, b)
        return ng * (1 - qg / (b + d)) + nl * (1 - ql / b)

    b = optimize.brentq(slope, ql * (1 - 1e-9), max(qg, ql) * (1 + 1e-9), xtol=1e-300, rtol=1e-15)
    law = stats.poisson.logpmf
    return law(xg, ng * qg) - law(xg, ng * (b + d)) + law(xl, nl * ql) - law(xl, nl * b)


def case(name, seed, amount, floor, noise, usual, greater, rates, traffic, looks=80):
    rng = np.random.default_rng(seed)
    ratio, limit = Ratio(180), Limit(180)
    counts, ln_e = [], []
    for look in range(looks):
        bad = look >= looks // 2
        nc, nb = (int(rng.poisson(rate)) for rate in traffic)
        xc, xb = int(rng.binomial(nc, rates[1] if bad else rates[0])), int(rng.binomial(nb, rates[0]))
        if greater == "canary":
            bound = usual + amount
            bets = [(effect * bound, usual) for effect in EFFECTS]
            look_counts, margin, known = (xc, nc, xb, nb), bound / usual, usual
        else:
            bound = usual - amount
            bets = [(usual, bound / effect) for effect in EFFECTS]
            look_counts, margin, known = (xb, nb, xc, nc), usual / bound, None
        paid = [np.exp(pay(*look_counts, *bet, amount) / noise) for bet in bets] if nc and nb else None
        e = ratio.step(*look_counts, margin, noise, known, paid)
        if amount < floor:
            e = min(e, limit.step(xc, nc, floor, noise, usual))
        counts.append([xc, nc, xb, nb])
        ln_e.append(float(e))
    return dict(name=name, amount=amount, floor=floor, horizon=180, noise=noise, usual=usual,
                greater=greater, looks=counts, ln_e=ln_e)


def main():
    cases = [
        case("as allowed", 1, 0.01, 0.001, 1.0, 0.002, "canary", (0.002, 0.012), (100, 300)),
        case("far beyond", 2, 0.01, 0.001, 1.06, 0.002, "canary", (0.002, 0.05), (100, 300)),
        case("no amount", 3, 0.0, 0.0, 1.0, 0.01, "canary", (0.01, 0.03), (50, 50)),
        case("less than the floor", 4, 0.0005, 0.01, 1.3, 0.001, "canary", (0.001, 0.05), (80, 80)),
        case("falls short", 5, 0.05, 0.0, 1.0, 0.2, "baseline", (0.2, 0.08), (100, 100)),
        case("hardly any canary", 6, 0.02, 0.0, 2.5, 0.1, "baseline", (0.1, 0.0), (10, 190)),
        case("usual rate is wrong", 7, 0.01, 0.001, 1.0, 0.0001, "canary", (0.02, 0.08), (60, 60)),
    ]
    print(json.dumps(dict(about="written by golden_difference.py", cases=cases)))


main()
