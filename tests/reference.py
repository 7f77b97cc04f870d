"""The slow obvious version of everything: explicit loops, float64, scipy and `numpy.linalg.lstsq`.

What the package computes by sums, thin matrix products and prepared maps is here done one frame and one
pixel at a time, straight from the definitions in the docs. Nothing of `detectorcal` is imported.

    raw -> minus dark -> fill what is not to be believed -> replace spots -> Gaussian -> expected
    expected on measured, pixel by pixel -> coefficient, standard error
    (image - dark) x coefficient / flat -> corrected image
"""

import itertools
import math
from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter, median_filter

FILL_SIGMA = 3.0
FILL_WEIGHT = 1e-3
MAD_TO_STD = 1.4826


class Line(NamedTuple):
    """A fitted sweep: detector-shaped `coef`, and per frame what led to it."""

    coef: np.ndarray  # NaN where no frame took part
    measured: np.ndarray  # DN above dark, (n_frames, *detector_shape)
    expected: np.ndarray  # the same, smoothed
    takes_part: np.ndarray  # which of them entered the fit


# --- from raw frames to measured and expected values --------------------------------------------------


def measured_frames(sweep, dark):
    """Frames minus dark, DN, in float64: unsigned integers would wrap round below the dark.

    `dark` is a number, one frame, or one frame for each of the sweep.
    """
    sweep = np.asarray(sweep, np.float64)
    darks = np.broadcast_to(np.asarray(dark, np.float64), sweep.shape)
    return np.stack([frame - d for frame, d in zip(sweep, darks, strict=True)])


def believable(raw, measured, saturation=None):
    """Which pixels of one frame can be believed: finite, and below saturation in raw DN."""
    good = np.isfinite(measured)
    if saturation is not None:
        good = good & (np.asarray(raw, np.float64) < saturation)
    return good


def fill(frame, good):
    """Put the weighted mean of its believable neighbours into each pixel that is not believable.

    The weights are a Gaussian of 3 pixels. A pixel within whose reach less than a thousandth of that
    Gaussian falls on believable pixels asks again with twice the width, until it has an answer. Guesses
    are never made from guesses. A frame with nothing to believe is 0.
    """
    filled = np.where(good, frame, 0.0)
    known = filled.copy()
    waiting = ~good
    sigma = FILL_SIGMA
    diagonal = math.sqrt(sum(n**2 for n in frame.shape))
    while waiting.any() and sigma <= max(2 * diagonal, FILL_SIGMA):
        weight = gaussian_filter(good.astype(float), sigma, mode="nearest", truncate=4.0)
        total = gaussian_filter(known, sigma, mode="nearest", truncate=4.0)
        for pixel in zip(*np.nonzero(waiting), strict=True):
            if weight[pixel] > FILL_WEIGHT:
                filled[pixel] = total[pixel] / weight[pixel]
                waiting[pixel] = False
        sigma *= 2
    if good.any():
        filled[waiting] = known[good].mean()
    return filled


def medians(frame):
    """Median of the 5x5 pixels (25 on a line detector) around each; mirrored at the edges."""
    return median_filter(frame, size=25 if frame.ndim == 1 else 5, mode="mirror")


def spots(frame, n_spreads, read=None):
    """Pixels further from the median around them than so many robust spreads of that distance."""
    distance = (frame if read is None else read) - medians(frame)
    spread = MAD_TO_STD * np.median(np.abs(distance - np.median(distance)))
    if spread == 0:
        return np.zeros(frame.shape, bool)
    return np.abs(distance) > n_spreads * spread


def fill_by_planes(frame, kept_out):
    """Put into each pixel that is kept out the plane through its 8 nearest others in a 7x7 window.

    On a line, in 33 pixels. The plane is drawn towards a level one by a penalty of 4 times the squares of its
    slopes. With fewer than 6 others, every 2nd, 4th, ... pixel of a window so many times as wide counts.
    """
    reach = 3 if frame.ndim == 2 else 16
    shifts = [s for s in itertools.product(range(-reach, reach + 1), repeat=frame.ndim) if any(s)]
    shifts.sort(key=lambda shift: sum(x**2 for x in shift))
    filled = frame.copy()
    for pixel in zip(*np.nonzero(kept_out), strict=True):
        step, near = 1, []
        while len(near) < 6:
            moves = (tuple(p + step * x for p, x in zip(pixel, s, strict=True)) for s in shifts)
            places = list(zip(shifts, moves, strict=True))
            near = [
                (shift, frame[place])
                for shift, place in places
                if all(0 <= p < n for p, n in zip(place, frame.shape, strict=True)) and not kept_out[place]
            ][:8]
            step *= 2
        design = np.array([[1.0, *shift] for shift, _ in near])
        penalty = 2.0 * np.eye(frame.ndim + 1)[1:]  # squared: 4
        target = np.append([value for _, value in near], np.zeros(frame.ndim))
        filled[pixel] = np.linalg.lstsq(np.vstack([design, penalty]), target, rcond=None)[0][0]
    return filled


def expected_frame(frame, good, *, sigma, mode, cval, truncate, reject, kept_out=None):
    """Smooth one frame; give also which pixels are believable once spots are rejected."""
    kept_out = np.zeros(frame.shape, bool) if kept_out is None else kept_out
    if np.mean(good[~kept_out]) < 0.5:
        return np.zeros(frame.shape), np.zeros(frame.shape, bool)
    if kept_out.any() and good[~kept_out].all():
        whole = fill_by_planes(frame, kept_out)
    else:
        whole = fill(frame, good & ~kept_out)
    if reject is not None:
        # what is filled, but has sums of its own, is judged by what it reads
        found = spots(whole, reject, np.where(kept_out & good, frame, whole))
        whole = np.where(found, medians(whole), whole)
        good = good & ~found
    return gaussian_filter(whole, sigma, mode=mode, cval=cval, truncate=truncate), good


# --- the line through the origin ----------------------------------------------------------------------


def croton(measured, expected):
    """Least squares of expected on measured, for one pixel."""
    return np.linalg.lstsq(measured[:, None], expected, rcond=None)[0][0]


def photon(measured, expected):
    """Least squares with weights 1/measured, the inverse of the photon noise, for one pixel."""
    return expected.sum() / measured.sum()


METHODS = {"croton": croton, "photon": photon}


def curve(measured, expected, takes_part, system_gain, read_noise, centre, prior_std):
    """Posterior of one pixel's `a` and `b` in m = s (a + b (s - centre)), by the normal equations.

    Each frame has the variance K s + r^2. The prior of `b` is normal, of mean 0; that of `a` is flat.
    Gives the mean (2,) and the covariance (2, 2).
    """
    s, m = expected[takes_part], measured[takes_part]
    design = np.stack([s, s * (s - centre)], axis=1) / np.sqrt(system_gain * s + read_noise**2)[:, None]
    target = m / np.sqrt(system_gain * s + read_noise**2)
    if prior_std > 0:
        design = np.vstack([design, [0.0, 1 / prior_std]])
        target = np.append(target, 0.0)
        covariance = np.linalg.inv(design.T @ design)
    else:
        covariance = np.zeros((2, 2))
        covariance[0, 0] = 1 / (design[:, 0] @ design[:, 0])
    return covariance @ design.T @ target, covariance


def fit(
    sweep,
    dark=0.0,
    *,
    sigma,
    method="croton",
    mode="nearest",
    cval=0.0,
    truncate=4.0,
    cutoff=0.0,
    saturation=None,
    reject=None,
    kept_out=None,
):
    """Fit every pixel of a sweep, but for the smoothing those that are kept out of it."""
    measured = measured_frames(sweep, dark)
    expected = np.empty_like(measured)
    takes_part = np.empty(measured.shape, bool)
    for z, frame in enumerate(measured):
        good = believable(sweep[z], frame, saturation)
        expected[z], good = expected_frame(
            frame,
            good,
            sigma=sigma,
            mode=mode,
            cval=cval,
            truncate=truncate,
            reject=reject,
            kept_out=kept_out,
        )
        takes_part[z] = good & (expected[z] > cutoff)

    coef = np.full(measured.shape[1:], np.nan)
    for pixel in np.ndindex(coef.shape):
        frames = takes_part[(slice(None), *pixel)]
        if frames.any():
            coef[pixel] = METHODS[method](
                measured[(frames, *pixel)],
                expected[(frames, *pixel)],
            )
    return Line(coef, measured, expected, takes_part)


def relative_std(line, system_gain, method):
    """Relative standard error of each coefficient where var(measured) = K x measured.

    A small error dm of one frame changes the coefficient c by -(sum over s) dm / (sum m)^2 (photon) or,
    as s = c m, by -s dm / sum m^2 (croton). Adding the squares over frames gives, relative to c,
    K c / sum s  and  K c sum s^3 / (sum s^2)^2.
    """
    variance = np.full(line.coef.shape, np.nan)
    for pixel in np.ndindex(line.coef.shape):
        s = line.expected[(line.takes_part[(slice(None), *pixel)], *pixel)]
        if s.size and method == "photon":
            variance[pixel] = system_gain * line.coef[pixel] / s.sum()
        elif s.size:
            variance[pixel] = system_gain * line.coef[pixel] * (s**3).sum() / (s**2).sum() ** 2
    return np.sqrt(variance)


def textbook_relative_std(line):
    """What a book says of a line through the origin: the same noise in all frames, from the residuals."""
    std = np.full(line.coef.shape, np.nan)
    for pixel in np.ndindex(line.coef.shape):
        frames = line.takes_part[(slice(None), *pixel)]
        m, s = line.measured[(frames, *pixel)], line.expected[(frames, *pixel)]
        residual_variance = ((s - line.coef[pixel] * m) ** 2).sum() / (m.size - 1)
        std[pixel] = math.sqrt(residual_variance / (m**2).sum()) / line.coef[pixel]
    return std


# --- correction ---------------------------------------------------------------------------------------


def smooth_flat(
    flat, dark, coef, *, sigma, mode="nearest", cval=0.0, truncate=4.0, threshold=None, reject=None
):
    """Beam that a perfect detector would have seen, DN above dark.

    With a threshold the flat is believed, and not the coefficients, where the two disagree by that many
    standard deviations of their disagreement: dust, a pixel that has changed.
    """
    measured = np.asarray(flat, np.float64) - dark
    whole = fill(measured, np.isfinite(measured))
    if reject is not None:
        whole = np.where(spots(whole, reject), medians(whole), whole)
    beam = gaussian_filter(whole, sigma, mode=mode, cval=cval, truncate=truncate)
    if threshold is None:
        return beam
    residual = beam - coef * whole
    residual[np.abs(residual) < threshold * residual.std()] = 0.0
    return beam - residual


def correct(image, dark, coef, beam=None, reject=None):
    """Correct one image: dark, response, spots, and the beam of `smooth_flat` if there is one."""
    measured = np.asarray(image, np.float64) - dark
    if reject is not None:
        good = np.isfinite(measured)
        whole = fill(measured, good)
        measured = np.where(spots(whole, reject) & good, medians(whole), measured)
    corrected = measured * coef
    return corrected if beam is None else corrected / beam


# --- rings --------------------------------------------------------------------------------------------


def ring_multiplier(projections, variance, window, n_std):
    """What the transmission of each pixel is multiplied with, row by row and pixel by pixel.

    `projections` is (n_angles, height, width), `variance` (height, width), relative. A pixel is judged by
    the values above 0; it needs one, one pair of successive ones, and a known variance.
    """
    multiplier = np.ones(variance.shape)
    for y, v in enumerate(variance):
        mean, noise = np.full(v.shape, np.nan), np.full(v.shape, np.nan)
        for x in range(v.size):
            values = [-math.log(T) if T > 0 and math.isfinite(T) else None for T in projections[:, y, x]]
            usable = [p for p in values if p is not None]
            steps = [b - a for a, b in itertools.pairwise(values) if a is not None and b is not None]
            if steps and math.isfinite(v[x]):
                mean[x] = sum(usable) / len(usable)
                noise[x] = sum(step**2 for step in steps) / len(steps) / 2 / len(usable)
        judged = np.isfinite(mean)
        if not judged.any():
            continue
        whole = fill(mean, judged)
        course = gaussian_filter(whole, window, mode="nearest", truncate=4.0)
        course += gaussian_filter(whole - course, window, mode="nearest", truncate=4.0)
        e = (mean - course)[judged]
        spread = MAD_TO_STD * np.median(np.abs(e - np.median(e)))
        of_object = max(spread**2 - v[judged].mean() - noise[judged].mean(), 0.0)
        total = v[judged] + noise[judged] + of_object
        k = np.where(total > 0, v[judged] / np.where(total > 0, total, 1.0), 0.0)
        bound = np.minimum(n_std * np.sqrt(v[judged]), math.log(10))
        size = np.minimum(k * np.abs(e), np.maximum(2 * bound - k * np.abs(e), 0.0))
        multiplier[y, judged] = np.exp(np.sign(e) * size)
    return multiplier
