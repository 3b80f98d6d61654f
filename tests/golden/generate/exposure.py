"""The skew-normal distribution fitted to losses, its tail, and the exposures that follow, by SciPy -> ../fixtures/exposure.json

    python exposure.py
"""

import numpy as np
from cases import save_cases
from scipy.integrate import quad
from scipy.optimize import minimize
from scipy.special import log_ndtr
from scipy.stats import skewnorm

SEED = 20240711


def log_density(x, location, scale, shape):
    z = (x - location) / scale
    return np.log(2.0) - np.log(scale) - 0.5 * z * z - 0.5 * np.log(2.0 * np.pi) + log_ndtr(shape * z)


def log_below(x, location, scale, shape):
    """ln of the distribution function, also where scipy's own is 0 or noise: the density relative to its largest value, integrated."""
    grid = x - scale * np.linspace(0.0, 40.0, 400_001)
    values = log_density(grid, location, scale, shape)
    place = int(np.argmax(values))
    peak, top = values[place], grid[place]
    relative = lambda t: np.exp(log_density(t, location, scale, shape) - peak)
    end = grid[np.flatnonzero(values > peak - 60.0)[-1]]
    parts = [quad(relative, a, b, epsabs=0.0, epsrel=1e-11, limit=500)[0] for a, b in [(end, top), (top, x)] if b > a]
    return float(peak + np.log(sum(parts)))


def case(name, losses, canaries):
    start = skewnorm.fit(losses)
    cost = lambda p: -np.sum(log_density(losses, p[0], np.exp(p[1]), p[2]))
    options = dict(xatol=1e-10, fatol=1e-12, maxiter=20000, maxfev=20000)
    found = minimize(cost, [start[1], np.log(start[2]), start[0]], method="Nelder-Mead", options=options).x
    location, scale, shape = float(found[0]), float(np.exp(found[1])), float(found[2])
    most = 9 * np.log2(10.0)
    return dict(
        name=name,
        losses=[round(float(loss), 9) for loss in losses],
        location=location,
        scale=scale,
        shape=shape,
        log_likelihood=float(np.sum(log_density(losses, location, scale, shape))),
        canaries=canaries,
        log_below=[log_below(x, location, scale, shape) for x in canaries],
        counted=[float(np.log2(len(losses) + 1) - np.log2(np.sum(losses <= x) + 1)) for x in canaries],
        fitted=[min(most, -log_below(x, location, scale, shape) / np.log(2.0)) for x in canaries],
    )


def main():
    random = np.random.default_rng(SEED)
    draw = lambda *arguments, size=400: np.round(skewnorm.rvs(*arguments, size=size, random_state=random), 9)
    save_cases(__file__, SEED, ["scipy", "numpy"], [
        case("leaning right", draw(4.0, 20.0, 3.0), [10.0, 17.0, 19.0, 20.5, 22.0, 26.0]),
        case("leaning left", draw(-3.0, 25.0, 2.5), [5.0, 15.0, 20.0, 23.0, 25.5]),
        case("hardly leaning", draw(0.8, 60.0, 4.0), [20.0, 45.0, 58.0, 63.0, 75.0]),
    ])


if __name__ == "__main__":
    main()
