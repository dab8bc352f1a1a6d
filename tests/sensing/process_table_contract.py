"""What every ProcessTable must do, shown with real processes. Subclasses give the table."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tray_valet.core.errors import CannotKill
from tray_valet.core.ports import ProcessTable
from tray_valet.core.processes import ProcessIdentity

Start = Callable[..., subprocess.Popen[str]]
SLEEP = "import sys, time; print('up', flush=True); time.sleep(60)"


def wait_until(condition: Callable[[], object], timeout_s: float = 45.0) -> None:
    """Wait for something that another process does."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.01)


class ProcessTableContract:
    @pytest.fixture
    def table(self) -> ProcessTable:
        raise NotImplementedError

    @pytest.fixture
    def start(self) -> Iterator[Start]:
        """Start a program that says `up` when it is; all are ended with the test."""
        children: list[subprocess.Popen[str]] = []

        def start(*argv: str, cwd: Path | None = None) -> subprocess.Popen[str]:
            child = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=cwd)
            children.append(child)
            assert child.stdout is not None
            assert child.stdout.readline().startswith("up")
            return child

        yield start
        for child in children:
            child.kill()
            child.wait()
            assert child.stdout is not None
            child.stdout.close()

    @pytest.fixture
    def sleeper(self, start: Start) -> subprocess.Popen[str]:
        return start(sys.executable, "-c", SLEEP)

    def identity(self, table: ProcessTable, pid: int) -> ProcessIdentity:
        process = table.describe(pid)
        assert process is not None
        return process.identity

    # -- who runs

    def test_describes_image_arguments_and_parent(self, table: ProcessTable, start: Start) -> None:
        child = start(sys.executable, "-c", SLEEP, "two words", "", "größer", "x")
        process = table.describe(child.pid)
        assert process is not None
        assert process.identity.pid == child.pid
        assert os.path.samefile(process.exe, sys.executable)
        assert process.argv == (sys.executable, "-c", SLEEP, "two words", "", "größer", "x")
        assert process.parent_pid == os.getpid()
        assert process.parent_name

    def test_one_process_has_one_identity(self, table: ProcessTable, sleeper: subprocess.Popen[str]) -> None:
        assert self.identity(table, sleeper.pid) == self.identity(table, sleeper.pid)
        assert self.identity(table, sleeper.pid) != self.identity(table, os.getpid())

    def test_lists_the_living(self, table: ProcessTable, sleeper: subprocess.Popen[str]) -> None:
        assert {sleeper.pid, os.getpid()} <= set(table.all_pids())

    def test_what_is_gone_is_not_described(self, table: ProcessTable, sleeper: subprocess.Popen[str]) -> None:
        identity = self.identity(table, sleeper.pid)
        sleeper.kill()
        sleeper.wait()
        assert table.describe(sleeper.pid) is None
        assert not table.is_alive(identity)

    def test_a_zombie_is_not_alive(self, table: ProcessTable, sleeper: subprocess.Popen[str]) -> None:
        identity = self.identity(table, sleeper.pid)
        assert table.is_alive(identity)
        os.kill(sleeper.pid, signal.SIGKILL)
        wait_until(lambda: not table.is_alive(identity))  # it is not reaped before the test ends
        assert table.describe(sleeper.pid) is None

    def test_another_start_time_is_another_process(
        self, table: ProcessTable, sleeper: subprocess.Popen[str]
    ) -> None:
        identity = self.identity(table, sleeper.pid)
        assert not table.is_alive(ProcessIdentity(identity.pid, identity.start_time + 1))

    @pytest.mark.parametrize("pid", [-1, 0, 2**22 + 7, 2**40])
    def test_impossible_pids_are_nothing(self, table: ProcessTable, pid: int) -> None:
        assert table.describe(pid) is None
        assert not table.is_alive(ProcessIdentity(pid, 1))
        assert table.descendants(pid) == () or pid == 0

    def test_descendants_are_children_and_theirs(self, table: ProcessTable, start: Start) -> None:
        child = start("sh", "-c", "sh -c 'sleep 60 & echo up; wait' & wait")
        wait_until(lambda: len(table.descendants(child.pid)) == 2)
        below = table.descendants(child.pid)
        assert child.pid not in {one.pid for one in below}
        assert set(below) <= set(table.descendants(os.getpid()))
        for one in below:
            assert table.is_alive(one)
            table.kill(one)

    # -- who listens

    @pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::"])
    def test_names_who_listens(self, table: ProcessTable, start: Start, host: str) -> None:
        code = (
            "import socket, sys, time\n"
            "host = sys.argv[1]\n"
            "s = socket.create_server((host, 0), family=socket.AF_INET6 if ':' in host else socket.AF_INET)\n"
            "print('up', s.getsockname()[1], flush=True); time.sleep(60)"
        )
        if ":" in host and not _has_ipv6():
            pytest.skip("no IPv6 here")
        child = subprocess.Popen([sys.executable, "-c", code, host], stdout=subprocess.PIPE, text=True)
        try:
            assert child.stdout is not None
            port = int(child.stdout.readline().split()[1])
            assert table.listening_on(port) == self.identity(table, child.pid)
            child.stdout.close()
        finally:
            child.kill()
            child.wait()
        assert table.listening_on(port) is None

    def test_a_client_is_no_listener(self, table: ProcessTable) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            with socket.create_connection(("127.0.0.1", port)) as client:
                assert table.listening_on(port) == self.identity(table, os.getpid())
                assert table.listening_on(client.getsockname()[1]) is None

    @pytest.mark.parametrize(
        ("host", "called"),
        [
            ("127.0.0.1", "127.0.0.1"),
            ("0.0.0.0", "127.0.0.1"),
            ("::1", "::1"),
            ("::", "::ffff:127.0.0.1"),
        ],
    )
    def test_names_who_is_connected(self, table: ProcessTable, start: Start, host: str, called: str) -> None:
        if ":" in host and not _has_ipv6():
            pytest.skip("no IPv6 here")
        code = (
            "import socket, sys, time\n"
            "s = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
            "print('up', flush=True); time.sleep(60)"
        )
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.create_server((host, 0), family=family, dualstack_ipv6=host == "::") as server:
            port = server.getsockname()[1]
            assert table.clients_of(port) == ()
            with socket.create_connection((called, port)):
                assert table.clients_of(port) == (), "we are not named"
            first = start(sys.executable, "-c", code, called, str(port))
            second = start(sys.executable, "-c", code, called, str(port))
            wanted = {self.identity(table, child.pid) for child in (first, second)}
            assert set(table.clients_of(port)) == wanted
            for child in (first, second):
                child.kill()
                child.wait()
            wait_until(lambda: table.clients_of(port) == ())

    def test_a_caller_by_another_address_of_this_machine_is_named_too(
        self, table: ProcessTable, start: Start
    ) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(("192.0.2.1", 9))  # TEST-NET-1; nothing is sent
            except OSError:
                pytest.skip("no other address here")
            address = probe.getsockname()[0]
        code = (
            "import socket, sys, time\n"
            "s = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
            "print('up', flush=True); time.sleep(60)"
        )
        for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            if family is socket.AF_INET6 and not _has_ipv6():
                continue
            with socket.create_server((host, 0), family=family, dualstack_ipv6=host == "::") as server:
                port = server.getsockname()[1]
                child = start(sys.executable, "-c", code, address, str(port))
                assert table.clients_of(port) == (self.identity(table, child.pid),)

    def test_a_server_is_no_client_of_its_own_port(self, table: ProcessTable, start: Start) -> None:
        code = (
            "import socket, sys, time\n"
            "s = socket.create_server(('127.0.0.1', 0)); print('up', s.getsockname()[1], flush=True)\n"
            "c, _ = s.accept(); print('in', flush=True); time.sleep(60)"
        )
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        try:
            assert child.stdout is not None
            port = int(child.stdout.readline().split()[1])
            with socket.create_connection(("127.0.0.1", port)):
                assert child.stdout.readline().strip() == "in"
                assert table.clients_of(port) == ()
            child.stdout.close()
        finally:
            child.kill()
            child.wait()

    # -- what it uses

    def test_usage_counts_what_is_held_once(self, table: ProcessTable, start: Start) -> None:
        code = (
            "import time; held = b'x' * (80 << 20); end = time.process_time() + 0.3\n"
            "while time.process_time() < end: pass\n"
            "print('up', flush=True); time.sleep(60)"
        )
        identity = self.identity(table, start(sys.executable, "-c", code).pid)
        once = table.usage([identity])
        assert 80 << 20 <= once.ram_bytes <= once.resident_bytes < 200 << 20
        assert 0.25 <= once.cpu_s < 10
        assert table.usage([identity, identity]).ram_bytes == pytest.approx(once.ram_bytes, rel=0.05)
        stranger = ProcessIdentity(identity.pid, identity.start_time + 1)
        assert table.usage([stranger]).ram_bytes == 0
        assert table.usage([]).resident_bytes == 0

    # -- ending it

    def test_terminate_asks(self, table: ProcessTable, sleeper: subprocess.Popen[str]) -> None:
        identity = self.identity(table, sleeper.pid)
        table.terminate(identity)
        assert sleeper.wait(10) == -signal.SIGTERM
        table.terminate(identity)  # gone: fine

    def test_kill_ends_what_does_not_listen(self, table: ProcessTable, start: Start) -> None:
        child = start(
            sys.executable,
            "-c",
            "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
            "print('up', flush=True); time.sleep(60)",
        )
        identity = self.identity(table, child.pid)
        table.terminate(identity)
        assert table.is_alive(identity)
        table.kill(identity)
        assert child.wait(10) == -signal.SIGKILL
        table.kill(identity)

    def test_a_reused_pid_is_never_hit(self, table: ProcessTable, sleeper: subprocess.Popen[str]) -> None:
        identity = self.identity(table, sleeper.pid)
        stranger = ProcessIdentity(identity.pid, identity.start_time - 1)
        table.terminate(stranger)
        table.kill(stranger)
        with pytest.raises(subprocess.TimeoutExpired):
            sleeper.wait(0.2)

    def test_neither_itself_nor_init_may_be_ended(self, table: ProcessTable) -> None:
        with pytest.raises(CannotKill):
            table.kill(self.identity(table, os.getpid()))
        for pid in (0, 1):
            with pytest.raises(CannotKill):
                table.terminate(ProcessIdentity(pid, 1))

    @pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="takes two users")
    def test_another_users_process_cannot_be_ended(
        self, table: ProcessTable, sleeper: subprocess.Popen[str]
    ) -> None:
        identity = self.identity(table, sleeper.pid)

        def end_it() -> None:
            with pytest.raises(CannotKill) as refusal:
                table.kill(identity)
            assert refusal.value.remedy

        assert run_as_nobody(end_it) == 0
        assert table.is_alive(identity)


def run_as_nobody(act: Callable[[], None]) -> int:
    """Run something in a forked child as user 65534; 0 when it did not raise."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setgid(65534)
            os.setuid(65534)
            act()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True
