"""The programs that start games: Wine, run-times, wrappers, and the stores' clients.

Decides: nothing by itself; it is data. Names are file names in lower case without `.exe`.
Must not: hold rules (`games.py`), or name games (`game_tables.py`).
"""

from __future__ import annotations

from tray_valet.core.game_tables import names_in

WINE_LOADERS = names_in(
    """
    wine wine64 wine32 wine-preloader wine64-preloader wineloader wineloader64 wine-stable wine64-stable
    wine-development wine64-development wine-staging wine-arm64 wine32-preloader wine64-real wine.real
    """
)
# What a store puts before a game's own command: never the program that is meant.
WRAPPERS = names_in(
    """
    env sh bash dash python python3 gamescope mangohud gamemoderun steam-launch-wrapper _v2-entry-point
    proton umu-run taskset nice ionice prime-run obs-gamecapture obs-vkcapture gamescope-run switcherooctl
    stl steamtinkerlaunch strangle vkbasalt dbus-run-session tray-valet systemd-run systemd-inhibit run
    pressure-vessel-wrap pv-adverb
    """
)
# They run another architecture's programs: the first argument is the program.
TRANSLATORS = names_in("box64 box86 fexinterpreter fex fexbash qemu-x86_64 qemu-i386 qemu-x86_64-static")
# They run a game's own files: a file in a game's folder says which.
RUNTIMES = names_in(
    "java javaw mono mono-sgen mono64 dotnet love love2d nw nwjs electron hl neko godot ags scummvm"
)
JAVA = names_in("java javaw")

# What these variables name is inherited by everything a game opens: a second sign is always needed.
STORE_VARIABLES = (("HEROIC_APP_NAME", "heroic"), ("LUTRIS_GAME_UUID", "lutris"), ("GAMEID", "umu"))
NOBODYS_IDS = frozenset({"umu-default", "umu-0", "default", "0"})  # what umu sets for games it does not know

# Clients that start games as their own children, wherever those are installed.
STORE_OF_STARTER = {
    "battle.net": "battlenet",
    "upc": "ubisoft",
    "ubisoftconnect": "ubisoft",
    "eadesktop": "ea",
    "origin": "ea",
    "galaxyclient": "gog",
    "epicgameslauncher": "epic",
    "riotclientservices": "riot",
    "itch": "itch",
    "heroic": "heroic",
    "legendary": "epic",
    "lutris-wrapper": "lutris",
    "amazon games": "amazon",
    "nile": "amazon",
    "gogdl": "gog",
    "hyp": "hoyoverse",
    "reaper": "steam",
}
