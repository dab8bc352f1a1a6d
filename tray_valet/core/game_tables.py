"""The names that the game rules know: what is never a game, what always is, what needs a second look.

Decides: nothing by itself; it is data. Names are file names in lower case without `.exe`.
Must not: hold rules (`games.py`) or a user's wishes (settings).

Ids are Steam's (steamdb.info); names are those of the programs' own files.
"""

from __future__ import annotations

import re


def names_in(text: str) -> frozenset[str]:
    """Read a table that is written as words; `~` stands for a space inside a name."""
    return frozenset(word.replace("~", " ") for word in text.split())


DEMO_FOLDER = "/tray-valet-demo-"  # how the demo's temporary folders begin

# -- Steam's ids ---------------------------------------------------------------------------------

STEAM_TOOL_IDS = (
    names_in(  # redistributables, runtimes, Proton; SteamVR, controller files, wallpapers, overlays
        """
    7 228980 221410 1070560 1391110 1628350 4183110 891390 858280 961940 1054830 1113280 1245040 1420170
    1493710 1580130 1887720 2180100 2230260 2348590 2805730 3086180 3658110 1161040 1826330
    250820 241100 431960 388080 993090 629520 227260 908520 1009850 382110 1173510 1068820
    """
    )
)
STEAM_APPLICATION_IDS = names_in(  # Blender, OBS, Godot, Aseprite, Krita, RPG Maker, GameMaker, 3DMark, SFM …
    """
    365670 1905180 404790 431730 280680 363890 1096900 220700 235900 1670630 223850 1325860 274920 1840
    """
)

# Folders under steamapps/common that are no game's. The names of runtimes and Proton are Valve's.
STEAM_TOOL_FOLDER = re.compile(
    r"(?:proton[ -]|steamlinuxruntime|steam linux runtime|steamworks shared|steam controller configs|steamvr"
    r"|wallpaper_engine|steamworks sdk|borderless gaming|lossless scaling|soundpad|displayfusion)"
    r"|.*(?:dedicated server|\bsdk\b|authoring tools|mod tools|soundtrack)",
    re.IGNORECASE,
)
# Those of them that run other programs.
STEAM_RUNNER_FOLDER = re.compile(r"proton[ -]|steamlinuxruntime|steam linux runtime", re.IGNORECASE)
STEAM_APPLICATION_FOLDERS = names_in(
    """
    blender obs-studio obs~studio godot~engine godot aseprite krita rpg~maker~mv rpg~maker~mz
    gamemaker~studio~2 gamemaker 3dmark vtube~studio substance~3d~painter substance~3d~designer
    source~filmmaker sourcefilmmaker blockbench voicemod davinci~resolve houdini~indie marmoset~toolbag
    armorpaint fps~monitor
    """
)

# -- never a game, wherever they lie ----------------------------------------------------------------

HELPERS = names_in(
    """
    reaper fossilize_replay iscriptevaluator steamerrorreporter steamservice steam_monitor steamwebhelper
    gameoverlayui gameoverlayui64 gldriverquery gldriverquery64 vulkandriverquery vulkandriverquery64
    steam-launch-wrapper steam-runtime-launcher-service steam-runtime-launch-client steam-runtime-supervisor
    pressure-vessel-wrap pressure-vessel-adverb pv-adverb pv-bwrap srt-bwrap srt-logger _v2-entry-point
    wineserver wineserver64 winedevice winedbg winemenubuilder streaming_client vrwebhelper vrserver
    vrmonitor vrcompositor vrdashboard vrstartup gamelaunchhelper bssndrpt bssndrpt64 senddmp werfault
    werfault64 dumper blizzarderror blizzardbrowser bugreporter beservice beservice_x64 beclient battleye
    eaanticheat.installer eaanticheat.gameservice vgc vgtray vgm vgk faceit faceitservice gameguard gamemon
    gamemon64 nprotect xigncode xhunter1 sguard64 sguardsvc64 punkbuster pnkbstra pnkbstrb ace-guard-client
    easyanticheat easyanticheat_eos dxsetup dxwebsetup oalinst touchup cleanup rocksteadysetup msiexec
    regsvr32 directx_setup eosoverlayrenderer-win64-shipping eosoverlayrenderer-win32-shipping
    eosoverlayrenderer overlayinjector epicwebhelper epiconlineservicesuserhelper epiconlineservices
    easyinstaller uplaywebcore upcelevationservice uplayservice ubisoftextension socialclubhelper
    rockstarservice rockstarerrorhandler qtwebengineprocess cefsubprocess cefsharp.browsersubprocess
    cefprocess cefhelper nwjc browsersubprocess unrealcefsubprocess wallpaper32 wallpaper64
    wallpaperservice32 wallpaperservice64 wallpaper_engine livelywpf lively webwallpaper32
    linux-wallpaperengine winrtutil32 winrtutil64 applicationwallpaperinject32 applicationwallpaperinject64
    leagueclientux leagueclientuxrender riotclientux riotclientuxrender riotclientcrashhandler discordhook
    discordhookhelper64 nvidia~overlay nvcontainer rtss rtsshooksloader64 msiafterburner quicksfv vconsole2
    ffmpeg ffprobe 7z 7za aria2c xalia createdump
    """
)
# Names made of parts. "crash" alone is not enough: there are games about a bandicoot of that name.
HELPER_NAME = re.compile(
    r"crash[-_ .]?(?:report|handler|pad|send|dump|client|monitor|upload|service|catch|mon\b|helper|tool)"
    r"|(?:bug|error|dump|dmp)[-_ ]?(?:report|splat|handler|sender|uploader)|minidump"
    r"|easyanticheat|battleye|anti[-_ ]?cheat|eac_?(?:launcher|setup)"
    r"|^(?:vc_?redist|vcredist|dotnetfx|ndp\d|dotnet-|windowsdesktop-runtime|physx|xnafx|xna_|openal|directx)"
    r"|prereq|redist|^unins(?:tall)?(?:\d|$|[-_. ])|uninstall|^(?:un)?setup(?:[-_. \d]|$)|[-_ ]setup$"
    r"|^install(?:er|script)?(?:[-_. \d]|$)|[-_ .]?installer(?:[-_. \d]|$)"
    r"|overlay(?:renderer|ui|helper|host|injector)|webhelper|cef(?:sharp|sub|process)|browsersubprocess"
    r"|dedicated[-_ ]?server|(?<!ob)server(?:[-_ .]?(?:x?64|x86|x86_64|(?:win|linux).*))?$"
    r"|updater$|autoupdate|shadercompile|shaderprecompile"
)
# Folders inside a game's folder that hold what others made: run-times and anti-cheat services.
HELPER_FOLDERS = names_in(
    """
    _commonredist commonredist _redist redist redistributables redistributable __installer _installer
    directxredist directx vcredist dotnetredist easyanticheat easyanticheat_eos battleye crashreporter
    eosoverlay prerequisites prereqs
    """
)

# -- they start games; by themselves they are none ---------------------------------------------------

LAUNCHERS = names_in(
    """
    steam steam.sh steam_osx steam-runtime steamcmd steamtinkerlaunch bigpicture epicgameslauncher
    epicgameslauncher-win64-shipping epic~games~launcher epicgameslauncher-mac-shipping galaxyclient
    galaxyclientservice galaxyclient~helper galaxycommunication gog~galaxy gogdl minigalaxy battle.net
    battle.net~launcher battle.net~helper blizzard~battle.net upc uplay ubisoftconnect ubisoft~connect
    ubisoftgamelauncher ubisoftgamelauncher64 eadesktop ealauncher eabackgroundservice eaconnect_microsoft
    ealocalhostsvc origin originwebhelperservice origin~helper eaapp riotclientservices riotclient
    riot~client leagueclient rockstarlauncher launcherpatcher rockstar-games-launcher heroic legendary
    lutris lutris-wrapper bottles bottles-cli itch itch-setup butler gamehub cartridges playnite
    playnite.desktopapp playnite.fullscreenapp umu-run umu-launcher faugus-launcher pegasus-fe es-de
    emulationstation hgl minecraft-launcher minecraftlauncher minecraft~launcher prismlauncher multimc
    polymc atlauncher gdlauncher curseforge overwolf modrinth-app technic-launcher lunarclient lunar~client
    badlion~client hmcl robloxplayerlauncher robloxplayerinstaller bloxstrap fishstrap xboxpcapp xboxapp
    gamingservices gamingservicesui gamebar gamebarftserver xboxgamebar amazon~games amazongames
    amazon~games~ui hyp hoyoplay launcher_epic wgc wargaminggamecenter glyphclient paradox~launcher
    bethesdanetlauncher jagexlauncher ffxivlauncher xivlauncher vortex modorganizer r2modman geforcenow
    geforce~now moonlight moonlight-qt parsecd steamlink crossover whisky porting~kit mythic playonmac
    playonlinux
    """
)

# -- applications that need the GPU ------------------------------------------------------------------

GPU_APPS = names_in(
    """
    blender blender-launcher obs64 obs32 obs obs-studio unrealeditor ue4editor ue5editor unrealeditor-cmd
    ue4editor-cmd unreallightmass shadercompileworker robloxstudiobeta robloxstudio aseprite krita gimp
    davinciresolve final~cut~pro adobe~premiere~pro afterfx after~effects photoshop lightroom unity~hub
    cinema~4d 3dsmax maya houdini houdinifx substance~painter adobe~substance~3d~painter rpgmv rpgmz sfm
    gamemaker gamemakerstudio 3dmark vtube~studio keyshot twinmotion marmoset handbrake ghb shotcut kdenlive
    olive-editor comfyui invokeai creationkit creationkit64 topaz~video~ai
    """
)
# The same, but games have files of these names too: they count only outside of a game's folder.
GPU_APPS_OUTSIDE = names_in(
    "unity resolve nuke modo natron inkscape freecad darktable rawtherapee xcode logic~pro"
)
GODOT_EDITOR = re.compile(r"godot(?:[-_ .v]*\d.*|\.(?:x11|windows|linuxbsd).*|-mono)?$")

# -- desktop programs that stores' clients and games open -------------------------------------------

DESKTOP_PROGRAMS = names_in(
    """
    firefox firefox-esr firefox-bin chrome google-chrome google~chrome chromium chromium-browser brave
    brave-browser msedge microsoftedge microsoft-edge opera vivaldi vivaldi-bin librewolf waterfox zen
    zen-bin safari iexplore epiphany konqueror falkon tor-browser discord discordptb discordcanary vesktop
    slack teams telegram signal element spotify vlc mpv kodi plex jellyfinmediaplayer code codium cursor
    notepad notepad++ explorer finder dolphin nautilus thunar nemo pcmanfm konsole gnome-terminal kitty
    alacritty foot wezterm xterm cmd powershell pwsh conhost bash sh dash zsh fish python python3 perl node
    electron java javaw env flatpak snap bwrap xdg-open gamescope mangohud mangoapp gamemoderun gamemoded
    taskmgr dwm ollama ollama~app lm~studio lm-studio lms llama-server koboldcpp jan gpt4all
    text-generation-webui vllm winecfg winetricks protontricks regedit notepad2 wordpad mspaint acrobat
    acrord32 soffice.bin libreoffice idea idea64 pycharm pycharm64 rider64 clion64 webstorm64 studio64
    devenv chess
    """
)
# Cards, boards and words: bundles of the game categories that a language model need not leave for.
LIGHT_MAC_GAMES = re.compile(
    r"^(?:chess|.*(?:solitaire|klondike|freecell|sudoku|minesweeper|mahjong|crossword|wordle|nonogram|backgammon).*)$"
)

# -- known by their own file names ---------------------------------------------------------------------

EMULATORS = names_in(
    """
    retroarch dolphin-emu dolphin-emu-nogui pcsx2 pcsx2-qt pcsx2x64 rpcs3 ppsspp ppssppsdl ppssppqt
    ppssppwindows ppssppwindows64 duckstation duckstation-qt duckstation-nogui
    duckstation-qt-x64-releaseltcg cemu ryujinx ryujinx.ava yuzu yuzu-cmd suyu sudachi citron citra citra-qt
    lime3ds azahar xemu xenia xenia_canary xenia-canary vita3k shadps4 mgba mgba-qt mednafen melonds desmume
    desmume-cli snes9x snes9x-gtk snes9x-x64 bsnes mupen64plus mupen64plus-gui simple64-gui rmg flycast
    redream scummvm dosbox dosbox-x dosbox-staging mame mame64 fbneo stella vbam visualboyadvance-m blastem
    openemu project64 fceux nestopia mesen emuhawk epsxe hypseus supermodel play-emu ares eka2l1 touchhle
    """
)
# KDE's file manager has the same name as the emulator has on Windows and macOS.
EMULATORS_NOT_ON_LINUX = names_in("dolphin dolphinemu")
# Options that name a core, settings or a user folder: their values are not what is played.
EMULATOR_OPTIONS_WITH_VALUE = frozenset(
    {
        "-L",
        "--libretro",
        "-c",
        "--config",
        "--appendconfig",
        "-u",
        "--user",
        "--log-file",
        "-C",
        "--conf",
        "-conf",
    }
)

# Free games for Linux that use the GPU, and store-less games elsewhere; never "all of /usr/games".
KNOWN_GAMES = names_in(
    """
    forzahorizon4 forzahorizon5 forzamotorsport flightsimulator flightsimulator2024 haloinfinite
    mcc-win64-winstore seaofthieves sotgame starfield warframe.x64 destiny2 warthunder supertuxkart 0ad
    pyrogenesis xonotic xonotic-glx xonotic-sdl xonotic-linux64-glx xonotic-linux64-sdl minetest luanti
    openttd wesnoth warzone2100 openarena ioquake3 quake3 sauerbraten sauer_client ac_client redeclipse
    redeclipse_linux teeworlds ddnet hedgewars hwengine extremetuxracer etr fgfs flightgear torcs
    speed-dreams speed-dreams-2 stuntrally stuntrally3 megaglest openmw openra openra-ra veloren-voxygen
    unvanquished chocolate-doom gzdoom lzdoom uzdoom prboom-plus dsda-doom yquake2 yamagi-quake2 ironwail
    vkquake quakespasm stepmania itgmania osu! osu-lazer osu etl etlegacy simutrans widelands endless-sky
    naev pioneer neverball neverputt armagetronad darkplaces nexuiz alephone vcmiclient vcmi tesseract cube2
    factorio vintagestory mcpelauncher-client minecraft.windows minecraft.win10.dx11 sober love
    robloxplayerbeta robloxplayer eurotrucks2 amtrucks overwatch wow wowclassic wow-64 hearthstone sc2
    sc2_x64 starcraft heroesofthestorm heroesofthestorm_x64 diablo~iii diablo~iii64 diablo~iv
    diablo~immortal diabloimmortal d2r diablo~ii~resurrected warcraft~iii blackopscoldwar modernwarfare
    cod22-cod cod23-cod cod24-cod world~of~warcraft genshinimpact yuanshen starrail zenlesszonezero
    wutheringwaves client-win64-shipping worldoftanks worldofwarships worldofwarships64 escapefromtarkov
    starcitizen gta5 gta5_enhanced gtav rdr2 pathofexile pathofexile_x64 pathofexile2 ffxiv_dx11 ffxiv
    lostark blackdesert64 exefile league~of~legends leagueoflegends lor tslgame r5apex r5apex_dx12 fifa23
    fc24 fc25 fc26 bf2042 rocketleague eldenring cs2 dota2
    """
)
# Unreal's file names of finished games: Project-Win64-Shipping.
SHIPPING_NAME = re.compile(r"-(?:win64|win32|wingdk|linux|linuxarm64|mac|uwp64)-shipping$")

# Games from the Windows store that live under WindowsApps; the folder alone says nothing.
WINDOWS_STORE_GAMES = re.compile(
    r"/windowsapps/(?:microsoft\.(?:minecraftuwp|624f8b84b80|sunrisebasegame|flightsimulator|limitless|haloinfinite)"
    r"|bethesdasoftworks|deepsilver|ea(?:swissarl|\.)|2k|activision|ubisoft(?!connect)|seasofthieves)",
    re.IGNORECASE,
)

MINECRAFT_MAIN_CLASSES = frozenset(
    {
        "net.minecraft.client.main.Main",
        "net.minecraft.client.Minecraft",
        "net.minecraft.client.MinecraftApplet",
        "net.minecraft.launchwrapper.Launch",
        "cpw.mods.modlauncher.Launcher",
        "cpw.mods.bootstraplauncher.BootstrapLauncher",
        "net.minecraftforge.bootstrap.ForgeBootstrap",
        "net.neoforged.fml.startup.Client",
        "net.fabricmc.loader.launch.knot.KnotClient",
        "net.fabricmc.loader.impl.launch.knot.KnotClient",
        "org.quiltmc.loader.impl.launch.knot.KnotClient",
        "org.prismlauncher.EntryPoint",
        "org.polymc.EntryPoint",
        "org.multimc.EntryPoint",
        "org.fjordlauncher.EntryPoint",
        "io.github.zekerzhayard.forgewrapper.installer.Main",
        "com.moonsworth.lunar.genesis.Genesis",
    }
)
# The mod loaders start servers by the same classes and say so in their arguments.
MINECRAFT_SERVER_ARGUMENT = re.compile(
    r"(?:forge|fml|neoforge|quilt|fabric)\w*server\w*|nogui|--nogui", re.IGNORECASE
)
MINECRAFT_RUNTIME = re.compile(
    r"/(?:java-runtime-\w+|jre-legacy|jre-x64|\.?minecraft/runtime)/", re.IGNORECASE
)

STORE_OF_GAME = {
    **dict.fromkeys(("robloxplayerbeta", "robloxplayer", "sober"), "roblox"),
    **dict.fromkeys(
        ("overwatch", "wow", "wowclassic", "hearthstone", "sc2", "sc2_x64", "heroesofthestorm", "diablo iii",
         "heroesofthestorm_x64", "diablo iii64", "diablo iv", "diablo immortal", "d2r", "world of warcraft"),
        "battlenet",
    ),
    **dict.fromkeys(("minecraft.windows", "minecraft.win10.dx11"), "xbox"),
    **dict.fromkeys(("league of legends", "leagueoflegends", "lor"), "riot"),
}  # fmt: skip
