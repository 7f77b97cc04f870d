"""What becomes of defects, and of numbers that mean nothing: policies, and the maps that carry them out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from detectorcal import _validation as validation
from detectorcal._errors import InputError, warn
from detectorcal._typing import Float64
from detectorcal.kernels.correction import Drift, Maps, Rejection, ScanMaps
from detectorcal.kernels.finishing import Counts, Finish, Steps
from detectorcal.kernels.interpolation import Neighbours
from detectorcal.kernels.model import Curve, StraightLine
from detectorcal.kernels.uncertainty import Deviation, Uncertainty

__all__ = [
    "DEFECT_POLICIES",
    "Plan",
    "Policies",
    "warn_of_dark_flat",
    "warn_of_lost",
    "warn_of_meaningless",
    "warn_of_unknown_noise",
]

DEFECT_POLICIES = ("keep", "nan", "interpolate")

SMALLEST_READING = 0.5
"""DN above dark that `invalid="clip"` takes for the least: whole numbers tell no less from nothing."""

OPEN_BEAM = 1.0
"""Transmission that `invalid="clip"` gives where the flat is not positive: as if nothing stood in the
beam."""


class Policies(NamedTuple):
    """What the user wants to become of what; see :meth:`DetectorCalibrator.transform`."""

    defects: str
    invalid: str | float
    log: bool

    def check(self, *, has_flat: bool) -> None:
        """Raise unless each is one of its kind."""
        validation.check_choice("defects", self.defects, DEFECT_POLICIES)
        if isinstance(self.invalid, str) or self.invalid is None:
            if self.invalid not in ("nan", "clip"):
                raise InputError(
                    f'`invalid` must be "nan", "clip" or a number above 0, got {self.invalid!r}.'
                )
        else:
            validation.check_number("invalid", self.invalid, above=0)
        if not isinstance(self.log, (bool, np.bool_)):
            raise InputError(f"`log` must be True or False, got {self.log!r}.")
        if self.log and not has_flat:
            raise InputError("`log=True` takes the logarithm of a transmission, which needs a `flat`.")

    @property
    def number(self) -> float | None:
        """What stands in for all that means nothing, if it is one number."""
        return None if isinstance(self.invalid, str) else float(self.invalid)


@dataclass(frozen=True)
class Plan:
    """What is done with each pixel; float64 maps of detector shape."""

    dark: Float64
    scale: Float64
    """NaN where the flat is not positive, and at what is to become NaN."""
    curvature: Float64 | None
    reject: Rejection | None
    policies: Policies
    lit: np.ndarray
    """Where the scale is a number."""
    neighbours: Neighbours | None
    """What defects are replaced from."""
    drift: Drift | None = None
    """How the light of each frame of a scan differs from that of the flat."""

    def _maps(self, dtype: np.dtype) -> Maps | ScanMaps:
        maps = Maps.of(self.dark, self.scale, self.curvature, dtype)
        return maps if self.drift is None else ScanMaps(maps, self.drift.astype(dtype))

    def steps(self, dtype: np.dtype) -> Steps:
        """Give what makes corrected frames of raw ones."""
        return Steps(self._maps(dtype), self.reject, self.finish(dtype))

    def finish(self, dtype: np.dtype) -> Finish:
        """Give what becomes of corrected values, in the precision of the result."""
        least, instead = self._least_and_instead()
        neighbours = None if self.neighbours is None else self.neighbours.astype(dtype)
        maps = (self._beyond(), self._unlit(), least, instead)
        beyond, unlit, least, instead = (None if m is None else m.astype(dtype) for m in maps)
        return Finish(beyond, neighbours, unlit, least, instead)

    def _beyond(self) -> Float64 | None:
        """Give what stands in for readings that no intensity gives: the value at the top of the curve."""
        if self.curvature is None or self.policies.invalid == "nan":
            return None
        if self.policies.number is not None:
            return np.full_like(self.scale, self.policies.number)
        bent = self.curvature != 0
        top = -2 * self.scale / np.where(bent, self.curvature, 1.0)
        return np.where(bent, top, np.nan)

    def _unlit(self) -> Float64 | None:
        if self.policies.invalid == "nan" or self.lit.all():
            return None
        number = self.policies.number
        return np.where(self.lit, np.nan, OPEN_BEAM if number is None else number)

    def _least_and_instead(self) -> tuple[Float64 | None, Float64 | None]:
        """Give what a transmission must exceed to have a logarithm, and what stands in below."""
        if not self.policies.log:
            return None, None
        nothing = np.zeros_like(self.scale)
        if self.policies.invalid == "clip":
            smallest = np.full_like(self.scale, SMALLEST_READING)
            floor = Maps.of(nothing, self.scale, self.curvature, np.dtype(np.float64)).apply(smallest)
            return floor, floor
        number = self.policies.number
        return nothing, np.full_like(self.scale, np.nan if number is None else number)

    def deviation(
        self,
        response: Curve | StraightLine,
        beam: Float64 | None,
        known: Uncertainty,
        reading_variance: float,
        dtype: np.dtype,
    ) -> Deviation:
        """Give what tells the standard deviations of corrected values, in a dtype."""
        exact = np.dtype(np.float64)
        bend = None
        if self.curvature is not None:
            with np.errstate(divide="ignore", invalid="ignore"):
                bend = self.curvature / (2 * self.scale)
        return Deviation(
            maps=self._maps(exact),
            slope=self.scale,
            bend=bend,
            beam=beam,
            response=response,
            divisor_variance=known.divisor_variance,
            followed=known.followed,
            system_gain=float(known.system_gain),
            reading_variance=reading_variance,
            reject=self.reject,
            finish=self.finish(exact)._replace(beyond=None, unlit=None, instead=None),
            dtype=dtype,
        )


def warn_of_meaningless(counts: Counts, n_values: int, policies: Policies) -> None:
    """Warn once of each cause for which values mean nothing."""
    clipped = policies.invalid == "clip"
    became = "NaN" if policies.invalid == "nan" else f"{policies.number}"
    if counts.beyond:
        warn(
            f"{counts.beyond} of {n_values} values are readings that no intensity gives, beyond the top of a "
            f"pixel's curve: they are {'the value at that top' if clipped else became}. Record a sweep that "
            "is as bright."
        )
    if counts.low:
        least = "the transmission that half a DN gives" if clipped else "0"
        warn(
            f"{counts.low} of {n_values} transmissions are not above {least} and have no logarithm: they "
            f"count as {'that' if clipped else became}. See `invalid`."
        )


def warn_of_dark_flat(divisor: Float64, policies: Policies) -> None:
    """Count the pixels at which a flat is not positive."""
    count = int(np.count_nonzero(~(divisor > 0)))
    if count:
        number = OPEN_BEAM if policies.number is None else policies.number
        became = "NaN" if policies.invalid == "nan" else f"{number:g}"
        warn(
            f"the flat is not above the dark at {count} of {divisor.size} pixels: a transmission means "
            f"nothing there, and they become {became}."
        )


def warn_of_lost(neighbours: Neighbours | None) -> None:
    """Count the defects that no good pixel can be seen from."""
    count = 0 if neighbours is None else int(np.count_nonzero(np.isnan(neighbours.weights[0])))
    if count:
        warn(
            f"{count} defective pixels see no good pixel along their row, column or diagonals: they cannot "
            "be interpolated and become NaN."
        )


def warn_of_unknown_noise(known: Uncertainty) -> None:
    """Say that read noise is left out of what is stated."""
    if known.read_noise is None:
        warn(
            "the read noise is not known and left out of the standard deviations, which are too small where "
            "it is dark. Give `read_noise`, or a stack of darks."
        )
