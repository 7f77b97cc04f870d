"""Outputs are whole or not there, whatever interrupts them."""

# An interrupted block is what is tested:

import errno
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from detectorcal import _files, _temporary
from detectorcal._errors import (
    AccessError,
    DetectorcalError,
    InputError,
    MissingFileError,
    OutputExistsError,
    WriteError,
)
from detectorcal._files import atomic_file, atomic_folder, recover_folder

NOBODY = 65534


def names(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


def make_store(path: Path, text: str) -> Path:
    path.mkdir()
    (path / "zarr.json").write_text(text)
    return path


def write_store(path: Path, text: str) -> None:
    with atomic_folder(path, overwrite=True) as temporary:
        (temporary / "zarr.json").write_text(text)
        (temporary / "c").mkdir()
        (temporary / "c" / "0").write_text(text)


def test_file_is_invisible_until_whole(tmp_path):
    target = tmp_path / "out.h5"
    with atomic_file(target, overwrite=False) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".h5"
        assert temporary.name.startswith(".")
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert names(tmp_path) == ["out.h5"]


@pytest.mark.parametrize("interruption", [ValueError, KeyboardInterrupt, SystemExit])
def test_interrupted_file_leaves_the_old_one(tmp_path, interruption):
    target = tmp_path / "out.npy"
    target.write_text("old")
    with pytest.raises(interruption), atomic_file(target, overwrite=True) as temporary:
        temporary.write_text("half")
        raise interruption
    assert target.read_text() == "old"
    assert names(tmp_path) == ["out.npy"]


def test_existing_file_needs_overwrite(tmp_path):
    target = tmp_path / "out.npy"
    target.write_text("old")
    with pytest.raises(OutputExistsError, match="overwrite=True"), atomic_file(target, overwrite=False):
        pytest.fail("the block must not run")
    with atomic_file(target, overwrite=True) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"


def test_file_that_appears_meanwhile_is_not_replaced(tmp_path):
    target = tmp_path / "out.npy"
    with pytest.raises(OutputExistsError), atomic_file(target, overwrite=False) as temporary:
        temporary.write_text("mine")
        target.write_text("theirs")
    assert target.read_text() == "theirs"
    assert names(tmp_path) == ["out.npy"]


def test_permissions_follow_umask_and_are_kept(tmp_path):
    target = tmp_path / "out.npy"
    before = os.umask(0o027)
    try:
        with atomic_file(target, overwrite=False):
            pass
        assert stat.S_IMODE(target.stat().st_mode) == 0o640
        target.chmod(0o604)
        with atomic_file(target, overwrite=True):
            pass
        assert stat.S_IMODE(target.stat().st_mode) == 0o604
    finally:
        os.umask(before)


def test_link_is_written_through(tmp_path):
    (tmp_path / "disk").mkdir()
    link = tmp_path / "out.npy"
    link.symlink_to(tmp_path / "disk" / "real.npy")
    with atomic_file(link, overwrite=False) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert (tmp_path / "disk" / "real.npy").read_text() == "new"


def test_long_names_fit(tmp_path):
    target = tmp_path / ("é" * 120 + ".npy")
    with atomic_file(target, overwrite=False):
        pass
    assert target.exists()


def test_impossible_targets(tmp_path):
    with pytest.raises(InputError, match="folder"), atomic_file(tmp_path, overwrite=True):
        pass
    for atomic in (atomic_file, atomic_folder):
        with (
            pytest.raises(MissingFileError, match="does not exist"),
            atomic(tmp_path / "no" / "x", overwrite=True),
        ):
            pass


def test_folder_without_permission():
    """As another user if the tests run as root, whom permissions do not stop."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o555)
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(NOBODY)
        try:
            for atomic in (atomic_file, atomic_folder):
                output = atomic(Path(name) / "x", overwrite=False)
                with pytest.raises(AccessError, match="may not be written") as caught, output:
                    pass
                assert isinstance(caught.value, PermissionError)
                assert caught.value.errno == errno.EACCES
        finally:
            if is_root:
                os.seteuid(0)
            Path(name).chmod(0o755)


@pytest.mark.parametrize("where", ["body", "sync"])
def test_full_disk(tmp_path, monkeypatch, where):
    target = tmp_path / "out.npy"
    target.write_text("old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if where == "sync":
        monkeypatch.setattr(_files.os, "fsync", full)
    message = r"out\.npy.*No space left.*Free some space"
    with pytest.raises(WriteError, match=message) as caught, atomic_file(target, overwrite=True):
        if where == "body":
            full()
    assert isinstance(caught.value, DetectorcalError)
    assert caught.value.errno == errno.ENOSPC
    assert target.read_text() == "old"
    assert names(tmp_path) == ["out.npy"]


def test_other_errors_of_the_body_pass(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, atomic_file(tmp_path / "out", overwrite=True):
        raise FileNotFoundError("somebody else's file")
    assert not isinstance(caught.value, DetectorcalError)


def test_everything_is_synced_before_the_rename(tmp_path, monkeypatch):
    events = []
    replace, fsync = Path.replace, os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append("sync"), fsync(fd)))
    monkeypatch.setattr(Path, "replace", lambda *a: (events.append("rename"), replace(*a)))
    with atomic_file(tmp_path / "out", overwrite=False):
        pass
    assert events == ["sync", "rename", "sync"]


def test_store_is_replaced_whole(tmp_path):
    store = make_store(tmp_path / "a.zarr", "old")
    (store / "leftover").write_text("old")
    write_store(store, "new")
    assert names(tmp_path) == ["a.zarr"]
    assert names(store) == ["c", "zarr.json"]
    assert (store / "c" / "0").read_text() == "new"


def test_interrupted_store_leaves_the_old_one(tmp_path):
    store = make_store(tmp_path / "a.zarr", "old")
    with pytest.raises(KeyboardInterrupt), atomic_folder(store, overwrite=True) as temporary:
        (temporary / "zarr.json").write_text("half")
        raise KeyboardInterrupt
    assert (store / "zarr.json").read_text() == "old"
    assert names(tmp_path) == ["a.zarr"]


def test_only_stores_and_empty_folders_are_overwritten(tmp_path):
    precious = tmp_path / "photos.zarr"
    precious.mkdir()
    write_store(precious, "new")
    assert (precious / "zarr.json").read_text() == "new"
    with pytest.raises(OutputExistsError), atomic_folder(precious, overwrite=False):
        pass
    (precious / "zarr.json").unlink()
    for target in (precious, precious / "c" / "0"):  # an arbitrary folder, a file
        with (
            pytest.raises(OutputExistsError, match="not a zarr store"),
            atomic_folder(target, overwrite=True),
        ):
            pass
    assert (precious / "c" / "0").read_text() == "new"


class Killed(BaseException):
    pass


def kill_after_moving_aside(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave behind what a process leaves that dies between the two renames."""
    rename = Path.rename

    def die_at_second(self: Path, target: Path) -> Path:
        if Path(target) == store:
            raise Killed
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(_files, "_exchange", lambda *_: False)  # as file systems that cannot
        patch.setattr(Path, "rename", die_at_second)
        patch.setattr(_files.shutil, "rmtree", lambda *a, **k: None)
        with pytest.raises(Killed):
            write_store(store, "new")
    assert not store.exists()


def test_death_between_renames_is_recovered(tmp_path, monkeypatch):
    store = make_store(tmp_path / "a.zarr", "old")
    kill_after_moving_aside(store, monkeypatch)
    recover_folder(store)
    assert (store / "zarr.json").read_text() == "old"
    kill_after_moving_aside(store, monkeypatch)
    with pytest.raises(OutputExistsError), atomic_folder(store, overwrite=False):
        pass
    assert (store / "zarr.json").read_text() == "old"


def test_death_before_removing_the_old_one_is_cleaned(tmp_path):
    store = make_store(tmp_path / "a.zarr", "new")
    make_store(tmp_path / ".a.zarr.replaced", "old")
    recover_folder(store)
    assert names(tmp_path) == ["a.zarr"]
    assert (store / "zarr.json").read_text() == "new"


def test_failed_second_rename_puts_the_old_one_back(tmp_path, monkeypatch):
    store = make_store(tmp_path / "a.zarr", "old")
    rename = Path.rename

    def fail_for_new(self: Path, target: Path) -> Path:
        if ".part" in self.name:
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(_files, "_exchange", lambda *_: False)
    monkeypatch.setattr(Path, "rename", fail_for_new)
    with pytest.raises(WriteError, match="Input/output"):
        write_store(store, "new")
    assert (store / "zarr.json").read_text() == "old"
    assert names(tmp_path) == ["a.zarr"]


KILLED = """
import os, signal, sys
from detectorcal._files import atomic_file, atomic_folder
place = atomic_folder if sys.argv[1].endswith(".zarr") else atomic_file
with place(sys.argv[1], overwrite=True) as temporary:
    if temporary.is_dir():
        (temporary / "zarr.json").write_text("{}")
    os.kill(os.getpid(), signal.SIGKILL)
"""
"""Leaves what a process leaves that is killed while it writes."""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are looked up in /proc")
@pytest.mark.parametrize("name", ["out.h5", "out.zarr", "a[b].tif"])
def test_what_killed_processes_left_is_removed(tmp_path, name):
    target = tmp_path / name
    subprocess.run([sys.executable, "-c", KILLED, str(target)], check=False)
    (left,) = names(tmp_path)
    assert left.startswith(f".{target.stem}.")
    machine, pid, chance = left.removeprefix(f".{target.stem}.").split(".part")[0].split("-")
    others = [
        f".other.{machine}-{pid}-{chance}.part{target.suffix}",  # another output
        f".{target.stem}.00000000-{pid}-{chance}.part{target.suffix}",  # another machine
        f".{target.stem}.{machine}-{os.getpid()}-{chance}.part{target.suffix}",  # still alive
        f".{target.stem}.{machine}-{pid}-{chance}.part{target.suffix}.mine",
    ]
    for other in others:
        (tmp_path / other).touch()
    for _ in range(2):
        if target.suffix == ".zarr":
            write_store(target, "new")
        else:
            with atomic_file(target, overwrite=True) as temporary:
                temporary.write_text("new")
        assert names(tmp_path) == sorted([name, *others])


def test_nothing_is_removed_where_processes_cannot_be_told(tmp_path, monkeypatch):
    monkeypatch.setattr(_temporary, "_machine", lambda: "unknown")
    (tmp_path / ".out.unknown-999999999-00000000.part.h5").touch()
    with atomic_file(tmp_path / "out.h5", overwrite=False) as temporary:
        assert temporary.name.startswith(".out.unknown-")
    assert names(tmp_path) == [".out.unknown-999999999-00000000.part.h5", "out.h5"]
