"""Arrays of other libraries and devices: what is on one stays there, host batches go there and back.

GPUs are rare where this is tested. array-api-strict's second device stands in for one: ``np.asarray`` raises
on its arrays. Tests marked ``gpu`` need CuPy and a CUDA device.
"""

import itertools
import sys
import threading
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import array_api_strict
import numpy as np
import pytest

from detectorcal import DetectorCalibrator, _arrays, _streaming, correct_image, fit_response
from detectorcal._errors import DeviceError, MissingDependencyError, TooLargeError
from detectorcal.io import open_frames

SHAPE = (40, 48)
DEVICE = array_api_strict.Device("device1")
PATIENCE = 20.0
"""Seconds after which transfers that wait for the work of another batch are taken to wait for ever."""

pytestmark = [
    pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:.*frames take no part"),
]


@pytest.fixture(scope="module")
def scene():
    """A sweep of 27 frames, its dark, and a flat, uint16 and float64."""
    rng = np.random.default_rng(5)
    gain = 1 + 0.02 * rng.standard_normal(SHAPE)
    levels = np.linspace(500, 4000, 27)[:, None, None]
    dark = rng.uniform(90, 110, SHAPE)
    sweep = (rng.poisson(levels * gain) + dark).astype(np.uint16)
    return SimpleNamespace(sweep=sweep, dark=dark, flat=sweep[-1].astype(np.float64))


def on_device(values):
    return array_api_strict.asarray(values, device=DEVICE)


def test_the_stand_in_cannot_be_turned_into_numpy_by_accident(scene):
    with pytest.raises((TypeError, RuntimeError, ValueError)):
        np.asarray(on_device(scene.dark))


# --- arrays that are on a device already --------------------------------------------------------------

VARIANTS = {
    "croton": {},
    "photon": {"method": "photon"},
    "curved": {"method": "curved", "read_noise": 3.0, "system_gain": 1.0},
    "constant": {"mode": "constant", "cval": 3.0},
    "saturation": {"saturation": 3900.0},
    "reject": {"reject": 6.0},
    "cutoff": {"cutoff": 900.0},
}


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("dtype", [np.uint16, np.float64], ids=["uint16", "float64"])
def test_fit_on_a_devices_arrays(scene, options, dtype):
    sweep = scene.sweep.astype(dtype)
    wanted = DetectorCalibrator(sigma=12, **options).fit(sweep, dark=scene.dark)
    found = DetectorCalibrator(sigma=12, **options).fit(on_device(sweep), dark=on_device(scene.dark))
    # products on the device, lines of scipy.ndimage here: 1e-5 in float32, 2e-6 in float64 of the beam
    np.testing.assert_allclose(found.coef_, wanted.coef_, rtol=2e-6 if dtype == np.float64 else 1e-5)
    np.testing.assert_array_equal(found.defects_, wanted.defects_)
    assert type(found.coef_) is np.ndarray


def test_fit_on_a_devices_darks_per_frame(scene):
    darks = np.broadcast_to(scene.dark, scene.sweep.shape)
    wanted = DetectorCalibrator(sigma=12).fit(scene.sweep, dark=darks, dark_per_frame=True)
    found = DetectorCalibrator(sigma=12).fit(
        on_device(scene.sweep), dark=on_device(darks), dark_per_frame=True
    )
    np.testing.assert_allclose(found.coef_, wanted.coef_, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"reject": 6.0}], ids=["plain", "reject"])
def test_transform_stays_on_the_device(scene, options):
    cal = DetectorCalibrator(sigma=12, **options).fit(scene.sweep, dark=scene.dark)
    wanted = cal.transform(scene.sweep, scene.flat, 3.0)
    found = cal.transform(on_device(scene.sweep), on_device(scene.flat), 3.0)
    assert found.device == DEVICE
    assert found.dtype == array_api_strict.float32
    np.testing.assert_allclose(_arrays.to_host(found), wanted, rtol=1e-6)


def test_a_single_image_of_a_device(scene):
    cal = DetectorCalibrator(sigma=12).fit(scene.sweep, dark=scene.dark)
    found = cal.transform(on_device(scene.sweep[3]))
    assert found.shape == SHAPE
    np.testing.assert_allclose(_arrays.to_host(found), cal.transform(scene.sweep[3]), rtol=1e-6)


def test_the_functions_of_0_0_1_on_a_devices_arrays(scene):
    coef = fit_response(on_device(scene.sweep), on_device(scene.dark), sigma=12)
    np.testing.assert_allclose(coef, fit_response(scene.sweep, scene.dark, sigma=12), rtol=1e-5)
    found = correct_image(on_device(scene.sweep), on_device(coef), on_device(scene.dark))
    assert found.device == DEVICE
    assert found.dtype == array_api_strict.float64
    np.testing.assert_allclose(
        _arrays.to_host(found), correct_image(scene.sweep, coef, scene.dark), rtol=1e-12, atol=1e-9
    )


def test_torch(scene):
    torch = pytest.importorskip("torch", reason="PyTorch is far too large for the test extra")
    sweep = torch.asarray(scene.sweep.astype(np.float32))
    found = DetectorCalibrator(sigma=12).fit(sweep, dark=torch.asarray(scene.dark))
    wanted = DetectorCalibrator(sigma=12).fit(scene.sweep, dark=scene.dark)
    np.testing.assert_allclose(found.coef_, wanted.coef_, rtol=1e-5)
    corrected = found.transform(sweep, torch.asarray(scene.flat))
    assert isinstance(corrected, torch.Tensor)
    assert corrected.dtype == torch.float32
    np.testing.assert_allclose(corrected.numpy(), wanted.transform(scene.sweep, scene.flat), rtol=2e-5)


# --- host batches on their way to a device and back ---------------------------------------------------


class StandIn:
    """A device that counts what is carried, and lets a transfer end only beside the work on another batch.

    The transfer of a batch to the device must have begun before the work on the batch before it is done;
    that of a result back must not hold up the work on the batch after it. Were they one after the other,
    each would wait for the other until PATIENCE is at its end.
    """

    made: ClassVar[list["StandIn"]] = []

    def __init__(self):
        self.put_begun, self.work_done, self.n_got = 0, 0, 0
        self.put_bytes, self.got_bytes = 0, 0
        self.threads: dict[str, set[str]] = {"put": set(), "get": set(), "work": set()}
        self.n_batches = None
        self._change = threading.Condition()
        StandIn.made.append(self)

    def _note(self, what, n=1):
        with self._change:
            setattr(self, what, getattr(self, what) + n)
            self._change.notify_all()

    def _wait_until(self, condition):
        with self._change:
            assert self._change.wait_for(condition, PATIENCE), "transfers and work are not overlapped"

    def put(self, frames):
        assert type(frames) is np.ndarray
        self.threads["put"].add(threading.current_thread().name)
        self._note("put_begun")
        self._note("put_bytes", frames.nbytes)
        return on_device(frames)

    def finish(self):
        """End the work on a batch; all but the last wait for the next one to be on its way."""
        self.threads["work"].add(threading.current_thread().name)
        number = self.work_done + 1
        self._wait_until(lambda: self.put_begun > number or number == self.n_batches)
        self._note("work_done")

    def get(self, array):
        assert array.device == DEVICE
        self.threads["get"].add(threading.current_thread().name)
        self.n_got += 1
        number = self.n_got
        self._wait_until(lambda: self.work_done > number or number == self.n_batches)
        host = _arrays.to_host(array)
        self._note("got_bytes", host.nbytes)
        return host


@pytest.fixture
def stand_in(monkeypatch):
    """``device="cuda"`` is the stand-in; 27 frames in batches of 8 are 4 batches."""
    monkeypatch.setattr(StandIn, "made", [])

    def make():
        device = StandIn()
        device.n_batches = 4
        return device

    monkeypatch.setitem(_arrays.DEVICES, "cuda", make)
    return StandIn


def check_threads(device, *, back):
    """Each direction has a thread of its own, and the work another."""
    assert all(name.startswith("detectorcal-reader") for name in device.threads["put"])
    assert device.threads["work"] == {threading.current_thread().name}
    assert all(name.startswith("detectorcal-writer") for name in device.threads["get"])
    assert bool(device.threads["get"]) == back


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_fit_carries_each_frame_once_beside_the_work(scene, stand_in, options):
    cal = DetectorCalibrator(sigma=12, batch_size=8, device="cuda", **options)
    cal.fit(scene.sweep, dark=scene.dark)
    (device,) = stand_in.made
    assert device.put_begun == device.work_done == 4
    assert device.put_bytes == scene.sweep.nbytes  # raw: half the bytes of what is worked on
    check_threads(device, back=False)
    wanted = DetectorCalibrator(sigma=12, **options).fit(scene.sweep, dark=scene.dark)
    np.testing.assert_allclose(cal.coef_, wanted.coef_, rtol=1e-5)


def test_transform_carries_each_frame_once_each_way(scene, stand_in):
    cal = DetectorCalibrator(sigma=12).fit(scene.sweep, dark=scene.dark)
    wanted = cal.transform(scene.sweep, scene.flat)
    out = np.full(scene.sweep.shape, np.nan, np.float32)
    cal.set_params(device="cuda", batch_size=8).transform(scene.sweep, scene.flat, out=out)
    (device,) = stand_in.made
    assert device.put_begun == device.work_done == device.n_got == 4
    assert (device.put_bytes, device.got_bytes) == (scene.sweep.nbytes, out.nbytes)
    check_threads(device, back=True)
    np.testing.assert_allclose(out, wanted, rtol=1e-6)


def test_the_result_does_not_depend_on_the_batches(scene, monkeypatch):
    plain = SimpleNamespace(put=on_device, finish=lambda: None)
    monkeypatch.setitem(_arrays.DEVICES, "cuda", lambda: plain)

    def coef(batch_size):
        cal = DetectorCalibrator(sigma=12, batch_size=batch_size, device="cuda")
        return cal.fit(scene.sweep, dark=scene.dark).coef_

    np.testing.assert_array_equal(coef(8), coef(None))


def test_dask_works_on_the_device_too(scene, monkeypatch):
    da = pytest.importorskip("dask.array")
    carried = []

    class Plain:
        def put(self, frames):
            carried.append(len(frames))
            return on_device(frames)

        get = staticmethod(_arrays.to_host)

        def finish(self):
            pass

    monkeypatch.setitem(_arrays.DEVICES, "cuda", Plain)
    lazy = da.from_array(scene.sweep, chunks=(8, 20, -1))
    cal = DetectorCalibrator(sigma=12, device="cuda").fit(lazy, dark=scene.dark)
    assert sorted(carried) == [3, 8, 8, 8]
    wanted = DetectorCalibrator(sigma=12).fit(scene.sweep, dark=scene.dark)
    np.testing.assert_allclose(cal.coef_, wanted.coef_, rtol=1e-5)
    corrected = cal.transform(lazy)
    assert isinstance(corrected, da.Array)
    np.testing.assert_allclose(corrected.compute(), wanted.transform(scene.sweep), rtol=2e-5)


def test_the_device_is_not_saved(scene, stand_in, tmp_path):
    cal = DetectorCalibrator(sigma=12, batch_size=8, device="cuda").fit(scene.sweep, dark=scene.dark)
    cal.save(tmp_path / "cal.h5")
    assert DetectorCalibrator.load(tmp_path / "cal.h5").device is None


# --- no device ----------------------------------------------------------------------------------------


def test_without_cupy_the_error_names_the_extra(scene, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(MissingDependencyError, match=r"CuPy.*detectorcal\[gpu\]"):
        DetectorCalibrator(device="cuda").fit(scene.sweep)
    with pytest.raises(MissingDependencyError, match=r"detectorcal\[gpu\]"):
        fit_response(scene.sweep, gpu=True)


@pytest.mark.parametrize("reason", ["there is none", "cudaErrorInsufficientDriver"])
def test_without_a_usable_gpu_the_error_gives_the_reason(scene, monkeypatch, reason):
    class CUDARuntimeError(RuntimeError):
        pass

    def count():
        if reason == "there is none":
            return 0
        raise CUDARuntimeError(reason)

    runtime = SimpleNamespace(getDeviceCount=count, CUDARuntimeError=CUDARuntimeError)
    cupy = ModuleType("cupy")
    cupy.cuda = SimpleNamespace(runtime=runtime)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setitem(sys.modules, "cupyx", ModuleType("cupyx"))
    with pytest.raises(DeviceError, match=f"no usable GPU.*{reason}"):
        DetectorCalibrator(device="cuda").fit(scene.sweep)


def test_a_batch_that_does_not_fit(scene, monkeypatch):
    class Full:
        def put(self, frames):
            raise MemoryError("Out of memory allocating 4 GB")

    monkeypatch.setitem(_arrays.DEVICES, "cuda", Full)
    with pytest.raises(TooLargeError, match=r"batch of 27 frames of shape \(40, 48\).*4 GB.*`batch_size`"):
        DetectorCalibrator(sigma=12, device="cuda").fit(scene.sweep)
    with pytest.raises(MemoryError):  # and it is still the built-in kind
        DetectorCalibrator(sigma=12, device="cuda", batch_size="1 GB").fit(scene.sweep)


class Endless:
    """A stack larger than any memory."""

    shape, dtype = (10**9, *SHAPE), np.dtype(np.uint16)

    def __getitem__(self, batch):
        return np.empty((batch.stop - batch.start, *SHAPE), self.dtype)


def test_results_and_batches_larger_than_memory(scene):
    cal = DetectorCalibrator(sigma=12).fit(scene.sweep, dark=scene.dark)
    with pytest.raises(TooLargeError, match=r"the result, float32 of shape .*`out=`"):
        cal.transform(Endless())
    with pytest.raises(TooLargeError, match=r"batch of 1000000000 frames.*`batch_size`"):
        DetectorCalibrator(sigma=12, batch_size=10**9).fit(Endless())


# --- with a GPU ---------------------------------------------------------------------------------------


@pytest.fixture
def cupy():
    module = pytest.importorskip("cupy", reason="CuPy is not installed")
    try:
        n_devices = module.cuda.runtime.getDeviceCount()
    except module.cuda.runtime.CUDARuntimeError as error:
        pytest.skip(f"no usable GPU: {error}")
    return module if n_devices else pytest.skip("no GPU")


@pytest.mark.gpu
@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_cupy_arrays_stay_on_the_gpu(cupy, scene, options):
    wanted = DetectorCalibrator(sigma=12, **options).fit(scene.sweep, dark=scene.dark)
    sweep = cupy.asarray(scene.sweep)
    found = DetectorCalibrator(sigma=12, **options).fit(sweep, dark=cupy.asarray(scene.dark))
    np.testing.assert_allclose(found.coef_, wanted.coef_, rtol=1e-5)
    corrected = found.transform(sweep, cupy.asarray(scene.flat))
    assert isinstance(corrected, cupy.ndarray)
    np.testing.assert_allclose(corrected.get(), wanted.transform(scene.sweep, scene.flat), rtol=2e-5)


@pytest.mark.gpu
def test_host_batches_go_to_the_gpu_and_back(cupy, scene):
    wanted = DetectorCalibrator(sigma=12).fit(scene.sweep, dark=scene.dark)
    found = DetectorCalibrator(sigma=12, device="cuda", batch_size=8).fit(scene.sweep, dark=scene.dark)
    np.testing.assert_allclose(found.coef_, wanted.coef_, rtol=1e-5)
    corrected = found.transform(scene.sweep, scene.flat)
    assert type(corrected) is np.ndarray
    np.testing.assert_allclose(corrected, wanted.transform(scene.sweep, scene.flat), rtol=2e-5)


# --- batches ------------------------------------------------------------------------------------------


class Chunked:
    """A stack of a file with chunks."""

    def __init__(self, n_frames, chunk):
        self.shape, self.dtype = (n_frames, 64, 64), np.dtype(np.uint16)
        self.chunks = (chunk, 64, 64)


@pytest.mark.parametrize(
    ("chunk", "batch_size", "step", "wanted"),
    [
        (1, None, 1, 4096),  # 32 MiB are 4096 frames of 8 KiB
        (100, None, 1, 4200),  # the next multiple of 8 and 100
        (64, "1 MiB", 1, 128),
        (13, "1 MiB", 1, 208),  # 2 x 104
        (127, "1 MiB", 1, 128),  # 8 x 127 would be eight times what was asked for
        (13, 20, 1, 24),  # in whole runs: 8 x 13 would be five times what was asked for
        (12, 20, 1, 24),
        (16, 20, 1, 32),
        (13, 20, 5, 40),  # in whole steps
        (1, "1 MiB", 48, 144),
    ],
)
def test_batches_go_along_the_chunks_of_the_file(chunk, batch_size, step, wanted):
    cuts = _streaming.batches(Chunked(10_000, chunk), batch_size, step)
    assert cuts[0] == slice(0, wanted)
    assert all(a.stop == b.start for a, b in itertools.pairwise(cuts))
    assert cuts[-1].stop == 10_000


def test_batches_of_a_file_go_along_its_chunks(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "sweep.h5", "w") as file:
        file.create_dataset("data", (100, 16, 16), "u2", chunks=(12, 16, 16))
    with open_frames(tmp_path / "sweep.h5") as frames:
        assert _streaming.batches(frames, "10 kB")[0] == slice(0, 24)
