"""Writes golden_quantile.json: quantile evidence, reckoned look by look with numpy and scipy.

Shares nothing with the engine but the formulas of its module docs. Run it here, without arguments.
"""
import json

import numpy as np
from scipy.stats import norm

EFFECTS = np.array([1.4, 2.2, 5.0])  # multiples of the allowed ratio of slow shares
DEFAULT = np.array([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])


class Past:
    def __init__(self, edges):
        self.edges, self.counts = edges, np.zeros(len(edges) + 1)

    def share(self, i):
        return self.counts[i + 1:].sum() / self.counts.sum()

    def z(self, i):
        n = self.counts.sum()
        return norm.isf(np.clip(self.counts[i + 1:].sum(), 0.5, n - 0.5) / n)

    def beyond(self, x):
        """Share slower than x: z is linear in ln x between edges; all are slower than none."""
        r = np.searchsorted(self.edges, x)
        if r == 0:
            return 1.0
        if r == len(self.edges):
            return self.share(r - 1)
        if self.edges[r] == x:
            return self.share(r)
        return norm.sf(np.interp(np.log(x), np.log(self.edges[r - 1:r + 1]), [self.z(r - 1), self.z(r)]))

    def noise_share(self, i, q):
        inside = [j for j in range(len(self.edges)) if self.counts[j + 1:].sum() <= (1 - q) * self.counts.sum()]
        if not inside or inside[0] == 0:
            return 1.0
        r = inside[0]
        x = np.exp(np.interp(norm.ppf(q), [self.z(r - 1), self.z(r)], np.log(self.edges[r - 1:r + 1])))
        there = np.log(self.beyond(x / 1.2) / (1 - q))
        here = np.log(self.beyond(self.edges[i] / 1.2) / self.share(i))
        return 1.0 if there <= 0 else float(np.clip((here / there) ** 2, 0.2, 4.0))


def log_likelihood(rho, p, slow, n):
    """Each request falls to the canary with theta of its kind's ratio; arms: canary, baseline."""
    total = 0.0
    for ratio, (canary, baseline) in ((rho, slow), ((1 - rho * p) / (1 - p), n - slow)):
        theta = ratio * n[0] / (ratio * n[0] + n[1])
        total += canary * np.log(theta) + baseline * np.log1p(-theta)
    return total


def evidence(q, factor, kappa, secs, edges, looks):
    past, chances, order = Past(edges), np.zeros((0, len(EFFECTS))), []
    age, log_wealth, said = None, 0.0, []
    for canary, baseline in looks:
        n_past = past.counts.sum()
        if canary is not None:
            for i in range(len(edges)):
                above = past.counts[i + 1:].sum()
                if n_past >= 400 and above >= 10 and 0.005 <= above / n_past <= 0.4 and i not in order:
                    order.append(i)
                    chances = np.vstack([chances, np.zeros(len(EFFECTS))])
        if order:
            healthy = 1 - chances.sum()
            begin = 0.1 if age is None else min(0.25 * secs / (age + 30), 0.5)
            heal = min(secs / 100, 0.5)
            chances = chances * (1 - heal) + healthy * begin / chances.size
            age = (age or 0.0) + secs
            healthy = 1 - chances.sum()
            null, equal = np.zeros_like(chances), np.zeros_like(chances)
            for row, i in enumerate(order):
                if canary is None or baseline is None or sum(canary) == 0 or sum(baseline) == 0:
                    continue
                p = past.share(i)
                allowed = max(past.beyond(edges[i] / factor), p)
                if allowed > 0.9:
                    continue
                n = np.array([sum(canary), sum(baseline)], float)
                slow = np.array([sum(canary[i + 1:]), sum(baseline[i + 1:])], float)
                e = p * n / secs
                phi = 1 + 2 * kappa * past.noise_share(i, q) * e[0] * e[1] / e.sum() / (1 - p)
                for k, effect in enumerate(EFFECTS):
                    rho = min(allowed / p * effect, 0.97 / p)
                    here = log_likelihood(rho, p, slow, n)
                    null[row, k] = (here - log_likelihood(allowed / p, p, slow, n)) / phi
                    equal[row, k] = here - log_likelihood(1.0, p, slow, n)
            log_wealth += np.log(healthy + (chances * np.exp(null)).sum())
            chances = chances * np.exp(equal)
            chances /= healthy + chances.sum()
        if baseline is not None:
            past.counts += baseline
        said.append(float(log_wealth))
    return said


def simulate(random, law, edges, rps, slower, onset, looks, silent=0.0, shared=1.0):
    def arm(n, factor):
        if random.random() < silent:
            return None
        latencies = law(random, random.poisson(n)) * factor
        return np.bincount(np.searchsorted(edges, latencies), minlength=len(edges) + 1).tolist()

    seen = []
    for look in range(looks):
        drift = shared ** (look / looks)
        seen.append([arm(rps[0], drift * (slower if look >= onset else 1.0)), arm(rps[1], drift)])
    return seen


def log_normal(median, sigma):
    return lambda random, n: median * np.exp(sigma * random.standard_normal(n))


def gamma(mean, shape):
    return lambda random, n: random.gamma(shape, mean / shape, n)


def bimodal(random, n):
    return np.where(random.random(n) < 0.15, 0.3, 0.02) * np.exp(0.4 * random.standard_normal(n))


CASES = [
    # name, q, factor, kappa, secs, edges, law, (canary, baseline requests a look), slower, onset, looks, silent, shared
    ("twice as slow from look 30", 0.95, 1.2, 0.25, 1.0, DEFAULT, log_normal(0.05, 0.6), (20, 60), 2.0, 30, 50, 0.0, 1.0),
    ("the same by looks of 5 s", 0.95, 1.2, 0.25, 5.0, DEFAULT, log_normal(0.05, 0.6), (100, 300), 2.0, 12, 24, 0.0, 1.0),
    ("identical", 0.95, 1.2, 0.25, 1.0, DEFAULT, log_normal(0.05, 0.6), (50, 50), 1.0, 0, 60, 0.0, 1.0),
    ("both drift to three times", 0.95, 1.2, 0.1, 1.0, DEFAULT, log_normal(0.03, 0.5), (50, 50), 1.0, 0, 60, 0.0, 3.0),
    ("gamma, no noise, 1.5 times", 0.95, 1.2, 0.0, 1.0, DEFAULT, gamma(0.06, 3), (40, 40), 1.5, 20, 60, 0.0, 1.0),
    ("bimodal, a slow median", 0.5, 1.5, 0.25, 1.0, DEFAULT, bimodal, (40, 40), 3.0, 20, 40, 0.0, 1.0),
    ("the 99th percentile", 0.99, 1.2, 0.25, 1.0, DEFAULT, log_normal(0.05, 0.4), (100, 100), 2.0, 25, 45, 0.0, 1.0),
    ("silent looks", 0.95, 2.0, 0.25, 1.0, DEFAULT, log_normal(0.08, 0.5), (60, 30), 4.0, 25, 50, 0.3, 1.0),
    ("faster canary", 0.95, 1.2, 0.25, 1.0, DEFAULT, log_normal(0.05, 0.6), (40, 40), 0.5, 0, 40, 0.0, 1.0),
    ("quantile beyond all edges", 0.95, 1.2, 0.25, 1.0, np.array([0.02, 0.04, 0.06]), log_normal(0.05, 0.6), (60, 60), 2.0, 15, 30, 0.0, 1.0),
]

cases = []
for number, (name, q, factor, kappa, secs, edges, law, rps, slower, onset, looks, silent, shared) in enumerate(CASES):
    random = np.random.default_rng(8200 + number)
    seen = simulate(random, law, edges, rps, slower, onset, looks, silent, shared)
    said = evidence(q, factor, kappa, secs, edges, seen)
    print(f"{name:30} ln e {said[onset - 1]:8.3f} before the onset, {said[-1]:8.3f} at the end")
    cases.append(dict(name=name, q=q, factor=factor, kappa_secs=kappa, secs=secs, edges=edges.tolist(), looks=seen, ln_e=said))

with open("golden_quantile.json", "w") as out:
    json.dump(dict(about="written by golden_quantile.py beside it", effects=EFFECTS.tolist(), cases=cases), out)
    out.write("\n")
