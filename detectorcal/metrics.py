"""What is left of the fixed pattern: in frames, in sinograms and in reconstructions.

Ratios come in %, everything else in the unit of its input. Gaussians have ``mode="nearest"`` and run in
float64. Where nothing else is said an image is (height, width) and a stack has the frames in front.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from detectorcal._errors import InputError
from detectorcal._typing import Float64, Stack

__all__ = [
    "column_profile",
    "dsnu",
    "linearity_error",
    "prnu",
    "relative_spread",
    "ring_strength",
    "stripe_strength",
    "tile_step",
]

_LINEAR_RANGE = 0.05, 0.95  # of saturation: EMVA 1288
_RING_RADII = 8, 0.75  # px, and fraction of the half width: outside, too few pixels or the object's rim
_RING_COURSE = 6.0  # px, Gaussian that takes out the object's own course
_RING_WINDOW = 11  # px, running mean that does so without a reference
_TILE_REACH = 20  # px on either side of a tile edge


def prnu(flats: Stack, darks: Stack | None = None) -> float:
    r"""Photo response non-uniformity, freed of temporal noise [1]_.

    .. math:: \mathrm{PRNU} = 100 \sqrt{s_y^2 - s_{dark}^2} / (\mu_y - \mu_{dark}), \qquad
        s^2 = s^2_{measured} - \sigma^2_{temporal} / n

    with the spatial variance of the mean of `n` frames and the temporal one averaged over the pixels.

    Parameters
    ----------
    flats : array of shape (n_frames, *detector_shape)
        Frames of one level of an even beam, DN; at least two. Any beam profile counts as non-uniformity.
    darks : array of shape (n_frames, *detector_shape), optional
        Frames without beam, DN; at least two. Without them `flats` is taken as free of dark.

    Returns
    -------
    float
        %; 0 where temporal noise explains all the variance there is.

    Raises
    ------
    InputError
        If the shapes do not fit, or the flats are no brighter than the darks.

    References
    ----------
    .. [1] EMVA Standard 1288, Release 4.0 Linear, European Machine Vision Association, 2021.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> gain = 1 + 0.02 * rng.standard_normal((64, 64))
    >>> flats = rng.normal(1000 * gain, 30.0, (4, 64, 64))
    >>> round(prnu(flats), 1), round(100 * float(flats.mean(0).std() / flats.mean()), 1)
    (2.0, 2.5)
    """
    mean, variance = _spatial(flats, "flats")
    dark_mean, dark_variance = (0.0, 0.0) if darks is None else _spatial(darks, "darks")
    if darks is not None and darks.shape[1:] != flats.shape[1:]:
        raise InputError(f"`darks` has frames of shape {darks.shape[1:]}, but `flats` of {flats.shape[1:]}.")
    if not mean > dark_mean:
        raise InputError(
            f"`flats` must be brighter than the dark ({dark_mean:g} DN), but their mean is {mean:g}."
        )
    return 100.0 * float(np.sqrt(max(variance - dark_variance, 0.0))) / (mean - dark_mean)


def dsnu(darks: Stack) -> float:
    """Dark signal non-uniformity, freed of temporal noise (source and formula: see `prnu`).

    Parameters
    ----------
    darks : array of shape (n_frames, *detector_shape)
        Frames without beam, DN; at least two.

    Returns
    -------
    float
        DN (divide by the system gain for electrons); 0 where temporal noise explains all there is.

    Examples
    --------
    >>> dsnu(np.array([[1.0, 3.0, 2.0], [1.0, 3.0, 2.0]]))
    1.0
    """
    return float(np.sqrt(max(_spatial(darks, "darks")[1], 0.0)))


def linearity_error(exposure: ArrayLike, signal: ArrayLike, saturation: float) -> float:
    r"""Mean relative departure of a response from a straight line [1]_.

    The line minimises relative departures, :math:`\sum ((y_i - a_0 - a_1 H_i) / y_i)^2`, over the levels from
    5 to 95 % of saturation; the error is the mean of :math:`|y_i / (a_0 + a_1 H_i) - 1|` over them.

    Parameters
    ----------
    exposure : array of shape (n_levels,)
        Exposures :math:`H`, in any unit that is proportional to the light.
    signal : array of shape (n_levels,)
        Mean readings above the dark, DN.
    saturation : float
        Reading above the dark at which the detector saturates, DN.

    Returns
    -------
    float
        %.

    Raises
    ------
    InputError
        If fewer than three levels, or fewer than two exposures, lie between 5 and 95 % of saturation.

    References
    ----------
    .. [1] EMVA Standard 1288, Release 4.0 Linear, European Machine Vision Association, 2021.

    Examples
    --------
    >>> exposure = np.arange(1.0, 10.0)
    >>> linearity_error(exposure, 100 * exposure + 5, 1000.0) < 1e-9
    True
    >>> round(linearity_error(exposure, 100 * exposure * (1 - 0.01 * exposure), 1000.0), 2)
    1.4
    """
    h, y = np.asarray(exposure, dtype=np.float64), np.asarray(signal, dtype=np.float64)
    if h.ndim != 1 or h.shape != y.shape:
        raise InputError(
            f"`exposure` and `signal` must be (n_levels,) alike, but are {h.shape} and {y.shape}."
        )
    _positive(saturation, "saturation")
    low, high = (fraction * saturation for fraction in _LINEAR_RANGE)
    used = (y >= low) & (y <= high)
    h, y = h[used], y[used]
    if len(y) < 3:
        raise InputError(f"`signal` must hold three levels from {low:g} to {high:g} DN, but has {len(y)}.")
    if np.ptp(h) == 0:
        raise InputError(
            f"`exposure` must hold two values of levels from {low:g} to {high:g} DN, but all are {h[0]:g}."
        )
    design = np.stack([1.0 / y, h / y], axis=1)
    offset, slope = np.linalg.lstsq(design, np.ones(len(y)), rcond=None)[0]
    return 100.0 * float(np.mean(np.abs(y / (offset + slope * h) - 1.0)))


def ring_strength(reconstruction: ArrayLike, reference: ArrayLike | None = None) -> float:
    """Measure what is the same all around the axis of rotation: its standard deviation over the radius.

    With a reference: mean over the angle of the difference per integer radius, minus its Gaussian course of
    6 px. Without: median over the angle, which the object's edges disturb less, minus its running mean over
    11 px; rings of the object's own count too. Radii from 8 px to 75 % of the half width. No standard: chosen
    because it follows a fixed pattern of 0.1 to 3 % in proportion, which SSIM and PSNR do not.

    Parameters
    ----------
    reconstruction : array of shape (width, width)
        Slice, the axis of rotation in its middle, ``(width - 1) / 2``.
    reference : array of shape (width, width), optional
        The same slice without rings, such as the truth or a perfect detector's.

    Returns
    -------
    float
        In the unit of the reconstruction.

    Examples
    --------
    >>> y, x = np.mgrid[:101, :101] - 50
    >>> rings = 0.01 * (-1.0) ** np.hypot(x, y).round()
    >>> round(ring_strength(rings), 2), round(ring_strength(rings, reference=0 * rings), 2)
    (0.01, 0.01)
    """
    from scipy.ndimage import gaussian_filter1d, uniform_filter1d

    image = _finite(reconstruction, "reconstruction", 2)
    if image.shape[0] != image.shape[1] or image.shape[0] < 4 * _RING_RADII[0]:
        raise InputError(f"`reconstruction` must be square, 32 px at least, but has shape {image.shape}.")
    if reference is None:
        profile = _around(image, np.median)
        course = uniform_filter1d(profile, _RING_WINDOW, mode="nearest")
    else:
        truth = _finite(reference, "reference", 2)
        if truth.shape != image.shape:
            raise InputError(f"`reference` has shape {truth.shape}, but `reconstruction` {image.shape}.")
        profile = _around(image - truth, np.mean)
        course = gaussian_filter1d(profile, _RING_COURSE, mode="nearest")
    first, last = _RING_RADII[0], int(_RING_RADII[1] * image.shape[0] / 2)
    return float(np.std((profile - course)[first : last + 1]))


def stripe_strength(
    sinogram: ArrayLike, columns: Sequence[slice] = (slice(None),), *, sigma: float = 8.0
) -> float:
    """Measure what stays the same over the angles: its standard deviation over the columns.

    Per row the median over the angles, minus its Gaussian course along the row, standard deviation over
    `columns`; the mean over the rows.

    Parameters
    ----------
    sinogram : array of shape (n_angles, width) or (n_angles, height, width)
        -log(transmission), or what else should be free of stripes.
    columns : sequence of slice, default all
        Columns to judge by, best those that the object never covers.
    sigma : float, default 8
        Standard deviation of the Gaussian course, pixels.

    Returns
    -------
    float
        In the unit of the sinogram.

    Examples
    --------
    >>> stripe = np.zeros((20, 100))
    >>> stripe[:, ::2] = 0.01
    >>> round(stripe_strength(stripe, [slice(10, 90)]), 4)
    0.005
    """
    from scipy.ndimage import gaussian_filter1d

    values = _finite(sinogram, "sinogram", 2, 3)
    _positive(sigma, "sigma")
    profile = np.median(values, axis=0)
    left = profile - gaussian_filter1d(profile, sigma, axis=-1, mode="nearest")
    judged = np.concatenate([left[..., part] for part in columns], axis=-1)
    if judged.shape[-1] < 2:
        raise InputError(f"`columns` must hold two of the {values.shape[-1]} columns, but is {columns!r}.")
    return float(np.mean(np.std(judged, axis=-1)))


def relative_spread(frame: ArrayLike, coef: ArrayLike | float, sigma: float) -> float:
    """Spread of a corrected frame about its own smooth course.

    Standard deviation of ``frame * coef / Gaussian(frame; sigma) - 1``: temporal noise and what is left of
    the fixed pattern.

    Parameters
    ----------
    frame : array of detector shape
        Empty-beam frame minus its dark, DN, not among those the coefficients come from.
    coef : array of detector shape or float
        Coefficients; 1 to judge the frame before correction.
    sigma : float
        Standard deviation of the Gaussian, pixels.

    Returns
    -------
    float
        %.

    Raises
    ------
    InputError
        If the shapes differ, or the smoothed frame is not above 0 everywhere.

    Examples
    --------
    >>> frame = 1000 + 20 * np.random.default_rng(0).standard_normal((64, 64))
    >>> round(relative_spread(frame, 1.0, 10.0), 1), round(relative_spread(frame, 1000 / frame, 10.0), 1)
    (2.0, 0.1)
    """
    return 100.0 * float(np.std(_corrected_ratio(frame, coef, sigma)))


def column_profile(frame: ArrayLike, coef: ArrayLike | float, sigma: float) -> float:
    """Spread from column to column of a corrected frame, whose rows are averaged first.

    What makes rings, with little of the temporal noise: the ratio of `relative_spread`, mean over the rows,
    standard deviation over the columns.

    Parameters
    ----------
    frame, coef, sigma
        As for `relative_spread`, of an area detector.

    Returns
    -------
    float
        %.

    Examples
    --------
    >>> frame = np.full((40, 61), 100.0) + np.where(np.arange(61) % 2, 3.0, -3.0)
    >>> round(column_profile(frame, 1.0, 10.0), 1)
    3.0
    """
    frame = _finite(frame, "frame", 2)
    return 100.0 * float(np.std(_corrected_ratio(frame, coef, sigma).mean(axis=0)))


def tile_step(image: ArrayLike, index: int, axis: int) -> float:
    """Jump of an image at the edge between two detector tiles.

    The image is averaged along the edge; straight lines through the 20 values on either side are continued
    to the edge, half a pixel before `index`, and their difference is divided by the mean of the values.

    Parameters
    ----------
    image : array of shape (height, width)
        Any image that should pass smoothly over the edge.
    index : int
        First row (`axis` 0) or column (`axis` 1) of the second tile; 20 must lie on either side.
    axis : {0, 1}
        Axis that crosses the edge.

    Returns
    -------
    float
        %, positive where the second tile is brighter.

    Raises
    ------
    InputError
        If the edge is closer than 20 px to the rim, or the mean is 0.

    Examples
    --------
    >>> image = np.ones((60, 50))
    >>> image[30:] += 0.02
    >>> round(tile_step(image, 30, axis=0), 3), round(tile_step(image, 25, axis=1), 3)
    (1.98, 0.0)
    """
    values = _finite(image, "image", 2)
    if axis not in (0, 1):
        raise InputError(f"`axis` must be 0 (rows) or 1 (columns), but is {axis!r}.")
    if not _TILE_REACH <= index <= values.shape[axis] - _TILE_REACH:
        raise InputError(
            f"`index` must have {_TILE_REACH} pixels on either side, but is {index} of {values.shape[axis]}."
        )
    window = values.mean(axis=1 - axis)[index - _TILE_REACH : index + _TILE_REACH]
    if window.mean() == 0:
        raise InputError(
            "`image` must have a mean other than 0 about the edge, for the step is relative to it."
        )
    from_edge = np.arange(_TILE_REACH) + 0.5
    before = np.polynomial.Polynomial.fit(-from_edge[::-1], window[:_TILE_REACH], 1)(0.0)
    after = np.polynomial.Polynomial.fit(from_edge, window[_TILE_REACH:], 1)(0.0)
    return 100.0 * float((after - before) / window.mean())


def _spatial(stack: Stack, name: str) -> tuple[float, float]:
    """Mean, DN, and spatial variance freed of temporal noise, DN^2, of a stack read frame by frame."""
    n = stack.shape[0] if len(stack.shape) in (2, 3) else 0
    if n < 2:
        raise InputError(
            f"`{name}` must be a stack of two frames at least, but has shape {tuple(stack.shape)}."
        )
    first = np.asarray(stack[0], dtype=np.float64)
    total, squares = np.zeros_like(first), np.zeros_like(first)
    for i in range(1, n):
        difference = np.asarray(stack[i], dtype=np.float64) - first
        total += difference
        squares += difference**2
    mean = _finite(first + total / n, name, 1, 2)
    temporal = np.mean((squares - total**2 / n) / (n - 1))
    return float(mean.mean()), float(np.var(mean, ddof=1) - temporal / n)


def _corrected_ratio(frame: ArrayLike, coef: ArrayLike | float, sigma: float) -> Float64:
    from scipy.ndimage import gaussian_filter

    frame, coef = _finite(frame, "frame", 1, 2), _finite(coef, "coef", 0, 1, 2)
    _positive(sigma, "sigma")
    if coef.shape not in ((), frame.shape):
        raise InputError(f"`coef` has shape {coef.shape}, but `frame` has shape {frame.shape}.")
    smooth = gaussian_filter(frame, sigma, mode="nearest")
    if not np.all(smooth > 0):
        raise InputError(
            "`frame` must be above 0 when smoothed, but is not everywhere. Is it minus its dark?"
        )
    ratio: Float64 = frame * coef / smooth
    return ratio


def _around(image: Float64, average: Callable[[Float64], object]) -> Float64:
    """Average over rings one pixel wide, each centred on the detector's pixels, out to the half width."""
    width = image.shape[0]
    from_middle = np.arange(width) - (width - 1) / 2
    distance = np.hypot(from_middle, from_middle[:, None])
    radius = np.floor(distance + 0.5 * (width % 2)).astype(np.intp).ravel()  # 0 is a pixel, or between four
    order = np.argsort(radius, kind="stable")
    rings = np.split(image.ravel()[order], np.cumsum(np.bincount(radius))[: width // 2])
    return np.array([average(ring) for ring in rings[:-1]], dtype=np.float64)


def _finite(values: ArrayLike, name: str, *ndim: int) -> Float64:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim not in ndim or array.size == 0:
        wanted = " or ".join(map(str, ndim))
        raise InputError(
            f"`{name}` must have {wanted} dimensions and values in it, but has shape {array.shape}."
        )
    if not np.all(np.isfinite(array)):
        bad = int(np.count_nonzero(~np.isfinite(array)))
        raise InputError(f"`{name}` must be finite, but has {bad} values that are NaN or infinite.")
    return array


def _positive(value: float, name: str) -> None:
    if not 0 < value < np.inf:
        raise InputError(f"`{name}` must be above 0 and finite, but is {value!r}.")
