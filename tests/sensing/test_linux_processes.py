"""LinuxProcesses against real processes, and what only Linux shows."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sensing.process_table_contract import ProcessTableContract, Start, run_as_nobody
from tray_valet.core.ports import ProcessTable
from tray_valet.sensing.linux_processes import LinuxProcesses
from tray_valet.sensing.linux_procfs import exe_at, parse_stat, split_cmdline

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")


class TestLinuxProcesses(ProcessTableContract):
    @pytest.fixture
    def table(self) -> ProcessTable:
        return LinuxProcesses()

    def test_a_name_with_parentheses_and_spaces_is_no_trap(self, table: ProcessTable, tmp_path: Path) -> None:
        game = shutil.copy("/bin/sleep", tmp_path / "a) R 1 (b)")
        with subprocess.Popen([game, "60"]) as child:
            process = table.describe(child.pid)
            below = table.descendants(os.getpid())
            child.kill()
        assert process is not None
        assert process.parent_pid == os.getpid()
        assert process.identity in below

    def test_an_exe_replaced_on_disk_keeps_its_path(self, table: ProcessTable, tmp_path: Path) -> None:
        game = shutil.copy("/bin/sleep", tmp_path / "game")
        with subprocess.Popen([game, "60"]) as child:
            Path(game).unlink()
            process = table.describe(child.pid)
            child.kill()
        assert process is not None
        assert process.exe == str(game)

    def test_an_exe_that_is_called_deleted_keeps_its_name(self, tmp_path: Path) -> None:
        real = tmp_path / "game (deleted)"
        real.write_bytes(b"")
        (tmp_path / "link").symlink_to(real)
        assert exe_at(str(tmp_path / "link")) == str(real)
        real.unlink()
        assert exe_at(str(tmp_path / "link")) == str(tmp_path / "game")

    def test_only_the_variables_that_rules_read_are_told(self, table: ProcessTable) -> None:
        env = {"SteamAppId": "1145360", "HOME": "/secret", "API_KEY": "s", "LUTRIS_GAME_UUID": "u-1"}
        with subprocess.Popen(["/bin/sleep", "60"], env=env) as child:
            process = table.describe(child.pid)  # at once: its exec may not be through yet
            child.kill()
        assert process is not None
        assert process.env == {"SteamAppId": "1145360", "LUTRIS_GAME_UUID": "u-1"}

    def test_cwd_and_the_parents_whole_name_are_told(self, table: ProcessTable, tmp_path: Path) -> None:
        shell = shutil.copy("/bin/sh", tmp_path / "a-launcher-with-a-long-name")
        command = [shell, "-c", "sleep 60 & echo $!; wait"]
        with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            pid = int(child.stdout.readline())
            process = table.describe(pid)
            os.kill(pid, 9)
        assert process is not None
        assert process.cwd == str(tmp_path)
        assert process.parent_name == "a-launcher-with-a-long-name"

    def test_kernel_threads_are_no_processes(self, table: ProcessTable) -> None:
        comm = Path("/proc/2/comm")
        if not comm.exists() or comm.read_text() != "kthreadd\n":
            pytest.skip("kernel threads are not visible here")
        assert table.describe(2) is None

    def test_a_mapped_file_is_not_memory_that_is_held(
        self, table: ProcessTable, start: Start, tmp_path: Path
    ) -> None:
        model = tmp_path / "model"
        model.write_bytes(os.urandom(1 << 20) * 64)
        code = (
            "import mmap, sys, time; f = open(sys.argv[1], 'rb')\n"
            "m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ); sum(m[::4096])\n"
            "print('up', flush=True); time.sleep(60)"
        )
        assert mmap.PAGESIZE >= 4096
        child = start(sys.executable, "-c", code, str(model))
        process = table.describe(child.pid)
        assert process is not None
        usage = table.usage([process.identity])
        assert usage.resident_bytes - usage.ram_bytes > 64 << 20
        assert usage.ram_bytes < 40 << 20

    @pytest.mark.skipif(os.geteuid() != 0, reason="takes two users")
    def test_another_users_process_is_described_as_far_as_it_shows(self, table: ProcessTable) -> None:
        with subprocess.Popen(["/bin/sleep", "60"]) as child:

            def look() -> None:
                process = table.describe(child.pid)
                assert process is not None
                assert process.exe == ""
                assert process.argv == ("/bin/sleep", "60")
                assert process.env == {}

            code = run_as_nobody(look)
            child.kill()
        assert code == 0


@pytest.mark.parametrize(
    ("raw", "argv"),
    [
        (b"", ()),
        (b"\0\0\0", ()),
        (b"game\0", ("game",)),
        (b"a single argument with spaces", ("a single argument with spaces",)),
        (b"game\0--name\0\0x\0", ("game", "--name", "", "x")),
        (b"C:\\Games\\Hades.exe\0\0\0\0\0\0", ("C:\\Games\\Hades.exe",)),
        (b"\xff\xfe\0b\0", ("\ufffd\ufffd", "b")),
    ],
)
def test_command_lines_are_split_on_nuls_only(raw: bytes, argv: tuple[str, ...]) -> None:
    assert split_cmdline(raw) == argv


STAT = b"%s 1 2 2 0 -1 %d 0 0 0 0 70 30 0 0 20 0 %d 0 4242 0 0"


@pytest.mark.parametrize(
    ("state", "flags", "threads", "is_dead", "is_kernel_thread"),
    [
        (b"S", 0x400000, 1, False, False),
        (b"Z", 0x400000, 1, True, False),
        (b"Z", 0x400000, 3, False, False),  # the leader ended, its threads have not
        (b"X", 0x400000, 1, True, False),
        (b"I", 0x208040, 1, False, True),
    ],
)
def test_stat_tells_the_dead_and_the_kernels_own(
    state: bytes, flags: int, threads: int, is_dead: bool, is_kernel_thread: bool
) -> None:
    stat = parse_stat(b"77 (a) b (c)) " + STAT % (state, flags, threads))
    assert stat is not None
    assert (stat.comm, stat.parent_pid, stat.cpu_ticks, stat.start_time) == ("a) b (c)", 1, 100, 4242)
    assert stat.is_dead is is_dead
    assert stat.is_kernel_thread is is_kernel_thread


@pytest.mark.parametrize("raw", [b"", b"77", b"77 (x) S 1", b"garbage)("])
def test_a_broken_stat_is_nothing(raw: bytes) -> None:
    assert parse_stat(raw) is None
