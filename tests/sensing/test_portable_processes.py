"""The psutil table against real processes, and how Windows' and macOS' answers are read."""

from __future__ import annotations

import ctypes
import plistlib
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sensing.process_table_contract import ProcessTableContract
from tray_valet.core.ports import ProcessTable
from tray_valet.sensing.linux_procfs import split_cmdline
from tray_valet.sensing.macos_processes import BsdInfo, Bundles, argv_of, macos_processes
from tray_valet.sensing.portable_processes import PortableProcesses, PsutilOnly
from tray_valet.sensing.windows_processes import command_line_of, windows_processes


class ReaderOfProc(PsutilOnly):
    """Gives the arguments here, as Windows' and macOS' readers do there."""

    def argv(self, pid: int) -> tuple[str, ...]:
        return split_cmdline(Path(f"/proc/{pid}/cmdline").read_bytes())


@pytest.mark.skipif(sys.platform != "linux", reason="its arguments are read from /proc")
class TestPortableProcesses(ProcessTableContract):
    @pytest.fixture
    def table(self) -> ProcessTable:
        return PortableProcesses(ReaderOfProc())


def test_without_a_reader_no_arguments_are_told() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as child:
        process = PortableProcesses().describe(child.pid)
        child.kill()
    assert process is not None
    assert process.argv == ()


def test_macos_argument_area_is_read_without_the_environment() -> None:
    raw = struct.pack("=i", 3) + b"/bin/game\0\0\0\0game\0\0two words\0HOME=/secret\0"
    assert argv_of(raw) == ("game", "", "two words")


@pytest.mark.parametrize("raw", [b"", b"\x01", struct.pack("=i", 0) + b"/x\0", struct.pack("=i", 2) + b"/x"])
def test_a_broken_macos_argument_area_is_empty(raw: bytes) -> None:
    assert argv_of(raw) == ()


def test_macos_process_info_has_the_kernels_layout() -> None:
    assert ctypes.sizeof(BsdInfo) == 136
    assert (BsdInfo.ppid.offset, BsdInfo.start_tvsec.offset, BsdInfo.start_tvusec.offset) == (16, 120, 128)


@pytest.mark.parametrize("form", [plistlib.FMT_XML, plistlib.FMT_BINARY])
def test_a_macos_bundle_tells_its_category(tmp_path: Path, form: plistlib.PlistFormat) -> None:
    contents = tmp_path / "Mini Motorways.app" / "Contents"
    contents.mkdir(parents=True)
    info = {"LSApplicationCategoryType": "public.app-category.puzzle-games"}
    (contents / "Info.plist").write_bytes(plistlib.dumps(info, fmt=form))
    bundles = Bundles()
    exe = f"{contents}/MacOS/Mini Motorways"
    assert bundles.marks(exe) == {"bundle_category": "public.app-category.puzzle-games"}
    (contents / "Info.plist").unlink()
    assert bundles.marks(exe) == {"bundle_category": "public.app-category.puzzle-games"}  # read once


@pytest.mark.parametrize(
    "info", [b"", b"<plist", b"bplist00garbage", plistlib.dumps([1]), plistlib.dumps({})]
)
def test_a_macos_bundle_that_says_nothing_is_left_at_that(tmp_path: Path, info: bytes) -> None:
    contents = tmp_path / "X.app" / "Contents"
    contents.mkdir(parents=True)
    (contents / "Info.plist").write_bytes(info)
    assert Bundles().marks(f"{contents}/MacOS/X") == {}
    assert Bundles().marks("/usr/bin/x") == {}
    assert Bundles().marks("/nowhere/Y.app/Contents/MacOS/Y") == {}


def windows_answer(text: str, *, length: int | None = None, shift: int = 0) -> ctypes.Array[ctypes.c_char]:
    """A buffer as NtQueryInformationProcess fills it: UNICODE_STRING, then the text it points to."""
    data = text.encode("utf-16-le")
    raw = ctypes.create_string_buffer(16 + len(data) + 2)
    size = len(data) if length is None else length
    head = struct.pack("=HHxxxxQ", size, size + 2, ctypes.addressof(raw) + 16 + shift)
    raw[: len(head)] = head
    raw[16 : 16 + len(data)] = data
    return raw


@pytest.mark.skipif(ctypes.sizeof(ctypes.c_void_p) != 8, reason="laid out for 64 bits")
def test_a_windows_command_line_is_read_from_its_buffer() -> None:
    assert command_line_of(windows_answer('"C:\\Games\\Hadès.exe" -x')) == '"C:\\Games\\Hadès.exe" -x'
    assert command_line_of(windows_answer("")) == ""


@pytest.mark.skipif(ctypes.sizeof(ctypes.c_void_p) != 8, reason="laid out for 64 bits")
def test_a_windows_answer_that_points_elsewhere_is_not_followed() -> None:
    assert command_line_of(windows_answer("abc", shift=10_000)) == ""
    assert command_line_of(windows_answer("abc", shift=-10_000)) == ""
    assert command_line_of(windows_answer("abc", length=60_000)) == ""


@pytest.mark.skipif(sys.platform != "linux", reason="about systems that this is not")
def test_the_other_systems_tables_say_that_they_do_not_fit_here() -> None:
    for build in (windows_processes, macos_processes):
        with pytest.raises(OSError, match=r"Windows|libproc"):
            build()
