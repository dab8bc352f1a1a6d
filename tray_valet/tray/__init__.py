"""The tray: an icon, a tooltip and a menu on the main thread, and the bridge to the loop thread.

Decides: how the picture is drawn on each system. Must not: decide what the menu says (`core/menu.py`), or
do what is chosen (`core.commands.Valet` on the loop does).

How the composition root uses it; nothing here imports PIL, pystray or dbus-fast before `run_tray` runs:

    slot = PictureSlot()                                  # bridge.py, newest wins, any thread
    sender = CommandSender(                               # bridge.py
        loop,                                             #   the loop thread's event loop
        valet,                                            #   core.commands.Valet
        open_window=open_window,                          #   () -> Awaitable[None], on the loop
        report=report,                                    #   (str) -> None, on the loop: a failure
    )
    balloons = Balloons()                                 # bridge.py: .show(title, text) from any thread,
                                                          #   for a Windows notifier; raises NoTray elsewhere
    # on the loop thread, a guarded task beside the other loops; ends when the slot is closed:
    await feed(slot, valet)                               # feed.py
    # on the main thread; blocks until slot.close() (any thread, also before the start):
    run_tray(slot, sender, system=current_system(), balloons=balloons, report_missing=say_once)   # run.py

`run_tray` raises NoTray (no_tray.py: `.message`, `.remedy`, `.reason`) when there can be no tray here: no
session bus, the bus went away, no backend. The slot is closed then, and the caller serves on without a
tray. A desktop without a panel for it (GNOME without its extension, or a panel that comes late) is not
the end: `report_missing(NoTray)` is called once, on the main thread, after 3 s, and the icon appears when
a panel does. Signals: Linux runs Python's handlers at once while the tray runs; on Windows and macOS the
main thread sits in native code, so wake the loop thread by `signal.set_wakeup_fd`.
"""
