"""Writes golden_wager.json: the evidence of engine::wager and the noise of engine::dispersion, from
scipy's probability functions and plain loops. Run as: python3 golden_wager.py > golden_wager.json

The wager: two gamblers share the wealth, 0.9 and 0.1. Each holds a forecast, a posterior of
"healthy" (rate ratio 1) and of nine effects; at each look the share of an effect is bet at its
likelihood ratio against the margin, to the power 1/noise, and the share of healthy is kept.
"""
import json
import numpy as np
from scipy import special, stats

EFFECTS = [1.3, 1.6, 2.0, 3.0, 4.0, 6.0, 10.0, 20.0, 50.0]
N = len(EFFECTS)
RECOVERY, EXCHANGE, DRIFT_COST, MEMORY = 1e-4, 0.01, 0.1, 0.8
START = np.array([0.5] + [0.5 / N] * N)


def leak(shares, hazard):
    out = np.empty_like(shares)
    out[0] = shares[0] * (1 - hazard) + RECOVERY * shares[1:].sum()
    out[1:] = shares[1:] * (1 - RECOVERY) + shares[0] * hazard / N
    return out


class Ratio:
    def __init__(self, horizon):
        self.hazard = 1 / max(horizon, 2)
        self.paced = np.array([0.9 * START, 0.1 * START])  # pace known, pace drifting
        self.cautious = START.copy()
        self.log_wealth = np.log([0.9, 0.1])
        self.recent = np.zeros(2)

    def step(self, xc, nc, xb, nb, margin, noise, usual, paid=None):
        if nc <= 0 or nb <= 0:
            return special.logsumexp(self.log_wealth)
        events = xc + xb

        def split(ratio):  # all events of the look fall to the arms
            return stats.binom.logpmf(xc, events, ratio * nc / (ratio * nc + nb))

        ratios = np.array([1.0] + [margin * effect for effect in EFFECTS])
        by_split = np.array([split(ratio) for ratio in ratios]) / noise
        pays = np.exp(by_split - split(margin) / noise)
        if paid is not None:  # bets that pay otherwise; the forecast stays the same
            pays[1:] = paid
        pays[0] = 1.0
        self.log_wealth = self.log_wealth + np.log([(self.paced.sum(axis=0) * pays).sum(), (self.cautious * pays).sum()])

        self.cautious = self.cautious * np.exp(by_split - by_split[0])
        self.cautious = leak(self.cautious / self.cautious.sum(), self.hazard)
        known = by_split
        drifting = by_split
        if usual is not None:
            def both(ratio):  # both arms' counts, when the baseline's rate is the usual one
                return stats.poisson.logpmf(xc, usual * ratio * nc) + stats.poisson.logpmf(xb, usual * nb)
            known = np.array([both(ratio) for ratio in ratios]) / noise
            if self.recent[1] > 0:
                recent = (self.recent[0] + 0.5) / (self.recent[1] + 0.5 / usual)
                total = stats.poisson.logpmf(events, recent * (nc + nb)) / noise - DRIFT_COST
                drifting = by_split + total
            else:
                drifting = by_split + stats.poisson.logpmf(events, usual * (nc + nb)) / noise
        self.paced = self.paced * np.exp(np.array([known, drifting]))
        self.paced /= self.paced.sum()
        self.paced = np.array([leak(row, self.hazard) for row in self.paced])
        self.paced = (1 - EXCHANGE) * self.paced + EXCHANGE * self.paced[::-1]
        self.recent = MEMORY * self.recent + [events, nc + nb]
        return special.logsumexp(self.log_wealth)


class Limit:
    def __init__(self, horizon, below=False):
        self.below = below
        self.hazard = 1 / max(horizon, 2)
        self.shares = START.copy()
        self.log_wealth = 0.0

    def step(self, x, n, limit, noise, usual):
        if n <= 0:
            return self.log_wealth
        if self.below:
            healthy = 2.0 if usual is None else min(max(usual / limit, 1.0), 100.0)
            effects = [1 / effect for effect in EFFECTS]
        else:
            healthy = 0.5 if usual is None else min(max(usual / limit, 0.01), 1.0)
            effects = EFFECTS
        rates = np.array([healthy] + effects) * limit
        logs = np.array([stats.poisson.logpmf(x, rate * n) for rate in rates]) / noise
        logs -= stats.poisson.logpmf(x, limit * n) / noise
        pays = np.exp(logs)
        pays[0] = 1.0
        self.log_wealth += np.log((self.shares * pays).sum())
        self.shares = self.shares * np.exp(logs)
        self.shares = leak(self.shares / self.shares.sum(), self.hazard)
        return self.log_wealth


def wager_case(name, seed, margin, floor, horizon, noise, usual, rates, traffic, looks=120, silent=()):
    rng = np.random.default_rng(seed)
    ratio, limit = Ratio(horizon), Limit(horizon)
    counts, ln_e = [], []
    for look in range(looks):
        bad = look >= looks // 2
        nc, nb = (int(rng.poisson(rate)) for rate in traffic)
        if look in silent:
            nc = 0
        xc = int(rng.binomial(nc, rates[1] if bad else rates[0]))
        xb = int(rng.binomial(nb, rates[2] if bad else rates[0]))
        e = ratio.step(xc, nc, xb, nb, margin, noise, usual)
        if floor > 0:
            e = min(e, limit.step(xc, nc, floor, noise, usual))
        counts.append([xc, nc, xb, nb])
        ln_e.append(float(e))
    return dict(name=name, margin=margin, floor=floor, horizon=horizon, noise=noise, usual=usual,
                looks=counts, ln_e=ln_e)


def limit_case(name, seed, limit, noise, usual, total, rates, looks=60):
    rng = np.random.default_rng(seed)
    process = Limit(180, below=True)
    counts, ln_e = [], []
    for look in range(looks):
        x = int(rng.poisson(total * rates[look >= looks // 2]))
        counts.append([x, total])
        ln_e.append(float(process.step(x, total, limit, noise, usual)))
    return dict(name=name, limit=limit, horizon=180, noise=noise, usual=usual, looks=counts, ln_e=ln_e)


def blocks(x, n, secs, length):
    k = len(x) * secs // length
    per = length // secs
    return x[: k * per].reshape(k, per).sum(axis=1), n[: k * per].reshape(k, per).sum(axis=1)


def excess(value, error):
    over = value - 1
    return over * (1 - (2 * error / over) ** 2) * (1 + error) if over > 2 * error else 0.0


def noise_case(name, seed, secs, looks, share, sigma, tau, lag):
    rng = np.random.default_rng(seed)
    z, a, x, n = rng.normal(), np.exp(-secs / tau), [], []
    for _ in range(looks):
        z = a * z + np.sqrt(1 - a * a) * rng.normal()
        n.append(int(rng.poisson(100 * secs)))
        x.append(int(rng.binomial(n[-1], min(1, share * np.exp(sigma * z - sigma**2 / 2)))))
    xs, ns = np.array(x), np.array(n)
    p = xs.sum() / ns.sum()
    kappa = spread = 0.0
    for length in [5, 10, 20, 40, 60, 120, 240]:
        if length < secs:
            continue
        bx, bn = blocks(xs, ns, secs, length)
        if lag == 0:
            statistic = (((bx - p * bn) ** 2) / (p * (1 - p) * bn)).sum()
            value, error = statistic / (len(bx) - 1), np.sqrt((2 + 1 / (p * bn).mean()) / (len(bx) - 1))
        else:
            step = int(np.ceil(min(lag, (len(bx) - 1) * length / 2) / length - 0.5))  # half goes down
            terms, sizes = [], []
            for i in range(len(bx) - step):
                # A two-by-two table's chi-square, with the pooled share of all blocks for 1 - p.
                both, total = bx[i] + bx[i + step], bn[i] + bn[i + step]
                if both == 0:
                    continue
                expected = both * bn[i] / total
                terms.append((bx[i] - expected) ** 2 / (expected * bn[i + step] / total * (1 - p)))
                sizes.append(both / 2)
            if len(terms) < 8:
                continue
            value, error = np.mean(terms), np.sqrt((2 + 1 / np.mean(sizes)) * 2 / len(terms))
        found = excess(value, error) * (1 - p) / (xs.sum() / (looks * secs))
        kappa = max(kappa, found)
        if length <= max(40, 2 * secs):
            spread = max(spread, found / length)
    return dict(name=name, secs=secs, lag=lag, events=x, totals=n, kappa_secs=float(kappa), spread=float(spread))


def main():
    wagers = [
        wager_case("healthy", 1, 1.25, 0.001, 900, 1.0, 0.005, (0.005, 0.005, 0.005), (100, 100)),
        wager_case("ten times", 2, 1.25, 0.001, 900, 1.0, 0.005, (0.005, 0.05, 0.005), (100, 100)),
        wager_case("nothing known", 3, 1.25, 0.001, 900, 1.0, None, (0.005, 0.05, 0.005), (100, 100)),
        wager_case("both worse", 4, 1.5, 0.0, 180, 1.0, 0.005, (0.005, 0.05, 0.05), (100, 100)),
        wager_case("lopsided and noisy", 5, 1.5, 0.002, 900, 3.7, 0.004, (0.004, 0.06, 0.004), (10, 190)),
        wager_case("usual rate is wrong", 6, 1.25, 0.001, 900, 1.0, 0.0001, (0.01, 0.03, 0.01), (50, 50)),
        wager_case("no baseline events", 7, 2.0, 0.001, 60, 1.2, 1e-6, (0.0, 0.02, 0.0), (30, 30)),
        wager_case("silent looks, few requests", 8, 1.0, 0.0, 900, 1.0, 0.02, (0.02, 0.4, 0.02), (2, 2), silent=range(30, 50)),
        wager_case("outage", 9, 1.25, 0.001, 900, 1.0, 0.01, (0.01, 1.0, 0.01), (40, 40), looks=80),
    ]
    noises = [
        noise_case("none", 11, 1, 900, 0.01, 0.0, 1, 0),
        noise_case("short", 12, 1, 1800, 0.01, 0.4, 10, 0),
        noise_case("long looks", 13, 20, 240, 0.01, 0.5, 60, 0),
        noise_case("strong", 14, 5, 400, 0.2, 0.8, 60, 0),
        noise_case("against the past", 15, 5, 720, 0.05, 0.5, 200, 600),
        noise_case("a past too short for its lag", 16, 10, 200, 0.05, 0.5, 200, 86400),
    ]
    below = [
        limit_case("traffic falls", 21, 10.0, 1.0, 20.0, 1.0, (20.0, 5.0)),
        limit_case("traffic stops, noisy", 22, 10.0, 3.5, None, 5.0, (12.0, 0.0)),
        limit_case("fewer slow requests", 23, 0.05, 1.2, None, 100.0, (0.08, 0.02)),
    ]
    print(json.dumps(dict(about="written by golden_wager.py", effects=EFFECTS, wagers=wagers, noises=noises, below=below)))


if __name__ == "__main__":
    main()
