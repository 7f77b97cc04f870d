"""
Methods compared: croton and photon
===================================

Both methods draw a line through the origin. `croton` is the paper's least squares; `photon` weighs each frame
as photon noise asks. With much light they agree. With little, `croton` reads low: it divides by the sum of
the *squares* of noisy readings, which noise makes larger.
"""

import matplotlib.pyplot as plt
import numpy as np

from detectorcal import DetectorCalibrator
from detectorcal.simulate import Detector, exposure_ladder, true_coefficient

SIGMA, N_FRAMES = 10, 60
shape = (128, 128)
detector = Detector.random(shape, dsnu=0, read_noise=0, system_gain=1.0, bits=None, seed=1)
truth = true_coefficient(detector, SIGMA)
electrons = np.array([10, 30, 100, 300, 1000, 3000])  # a pixel and frame, in the mean

# %%
# One sweep for each amount of light, from half to one and a half of it. The truth is known, for the detector
# is simulated.

bias, scatter, stated = {}, {}, {}
for method in ("croton", "photon"):
    errors, known = [], []
    for mean in electrons:
        beam = np.ones(shape)
        ladder = exposure_ladder(beam, N_FRAMES, lowest=0.5 * mean, highest=1.5 * mean)
        sweep = detector.record(ladder, seed=2)
        cal = DetectorCalibrator(SIGMA, method=method).fit(sweep, dark=detector.dark)
        errors.append(100 * (cal.coef_ / truth - 1))
        known.append(100 * float(np.median(cal.coef_std_ / cal.coef_)))
    bias[method] = [float(error.mean()) for error in errors]
    scatter[method] = [float(error.std() / (1 + error.mean() / 100)) for error in errors]
    stated[method] = known

print("electrons  bias, %           scatter, %        standard error says, %")
print("           croton   photon   croton   photon   croton   photon")
for i, mean in enumerate(electrons):
    figures = [figure[method][i] for figure in (bias, scatter, stated) for method in bias]
    print(f"{mean:9d}" + "".join(f"{figure:9.2f}" for figure in figures))

# %%
# The bias is nearly the same at all pixels, so it makes no rings; but every corrected value is off by it. The
# scatter, which makes rings, is a little smaller with `photon`, and what `coef_std_` says of it is true for
# both, but for `croton` below some 30 electrons.

figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained")
for method, colour, marker in (("croton", "#D55E00", "o"), ("photon", "#0072B2", "s")):
    axes[0].semilogx(electrons, bias[method], color=colour, marker=marker, label=method)
    axes[1].loglog(electrons, scatter[method], color=colour, marker=marker, ls="", label=method)
    axes[1].loglog(electrons, stated[method], color=colour, label=f"{method}, coef_std_")
axes[0].set(ylabel="bias of the coefficients, %", xlabel="electrons a pixel and frame")
axes[1].set(ylabel="scatter about the truth, %", xlabel="electrons a pixel and frame")
for ax in axes:
    ax.legend()
