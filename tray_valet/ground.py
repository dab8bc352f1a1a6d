"""The ground: what everybody stands on is built here. Time, processes, the record, the books, the machine.

Decides: who of them knows whom. Must not: start anything, hold rules of its own, or know who acts on it.
"""

from __future__ import annotations

from collections.abc import Callable

from tray_valet.adapters.machine import gpu_sensor, host_sensor
from tray_valet.adapters.processes import ProcessAdapters
from tray_valet.core.config import Settings
from tray_valet.desktop.paths import Directories
from tray_valet.desktop.secrets import Secrets
from tray_valet.desktop.system import current_system
from tray_valet.services.activity import Activity
from tray_valet.services.atomic_file import write_atomically
from tray_valet.services.clock import SystemClock
from tray_valet.services.fleet import Fleet
from tray_valet.services.hold_book import HoldBook
from tray_valet.services.journal_book import JournalBook
from tray_valet.services.leases import Leases
from tray_valet.services.ledger import LedgerBook
from tray_valet.services.machine import Machine
from tray_valet.services.memory_probe import MemoryProbe
from tray_valet.services.models_folder import ModelsFolder
from tray_valet.services.request_log import RequestLog
from tray_valet.services.settings import SettingsStore
from tray_valet.services.tally import TallyBook
from tray_valet.services.traffic import Traffic


class Ground:
    """`on_holds_change` and `on_fleet_change` are called, on the loop, when something there has changed."""

    def __init__(
        self,
        directories: Directories,
        store: SettingsStore,
        on_holds_change: Callable[[], None],
        on_fleet_change: Callable[[], None],
    ) -> None:
        self.directories = directories
        self.store = store
        self.secrets = Secrets(directories.secrets_file)
        self.clock = SystemClock()
        self.system = current_system()
        processes = ProcessAdapters(self.system)
        self.table, self.process_watch = processes.table, processes.watch
        self.activity = Activity(self.clock)
        self.record = self.activity.record
        self.holds = HoldBook(self.clock, self.table, self.record, on_holds_change)
        self.fleet = Fleet(self.clock, self.record, on_fleet_change)
        self.leases = Leases()
        self.models_folder = ModelsFolder(self.fleet, str(directories.models_dir))
        self.tally = TallyBook(self.clock)
        self.activity.tell(self.tally.note)
        self.ledger = LedgerBook(directories.ledger_file, self.clock, write_atomically)
        self.activity.tell(self.ledger.note)
        self.traffic = Traffic(self.fleet.knows)
        self.activity.tell(self.traffic.note_fact)
        self.request_log = RequestLog(directories.requests_file)
        self.journal = JournalBook(directories.journal_file, self.clock, write_atomically, self.record)
        gpus = gpu_sensor(self.clock)
        self.host = host_sensor(self.clock)
        self.probe = MemoryProbe(self.table, gpus)
        self.machine = Machine(
            self.host,
            gpus,
            self.clock,
            lambda: self.models_folder.path,
            lambda: bool(self.fleet.residents()),
        )

    @property
    def settings(self) -> Settings:
        return self.store.current
