"""Is it a game? Table tests of the rules, and the properties that hold for every case."""

from __future__ import annotations

import json
import timeit
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tray_valet.core.errors import InvalidValue
from tray_valet.core.game_library import program_kind
from tray_valet.core.games import (
    Action,
    Classification,
    CompiledRule,
    GameRule,
    LibraryIndex,
    Program,
    ProgramKind,
    Verdict,
    classify,
    compile_rules,
)
from tray_valet.core.processes import Process, ProcessIdentity, System

CASES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent.parent / "data" / "process_cases.json").read_text(encoding="utf-8")
)
BY_ID = {case["id"]: case for case in CASES}
COMMON = "/home/ada/.local/share/Steam/steamapps/common"
REAPER = "/home/ada/.local/share/Steam/ubuntu12_32/reaper"
WINE = f"{COMMON}/Proton 9.0/files/bin/wine64-preloader"


def process(
    exe: str,
    *argv: str,
    env: dict[str, str] | None = None,
    parent: str = "",
    cwd: str = "",
) -> Process:
    return Process(
        identity=ProcessIdentity(100, 1),
        exe=exe,
        argv=argv or (exe,),
        env=env or {},
        parent_name=parent,
        cwd=cwd,
    )


def program(path: str, name: str, appid: str = "", kind: str = "game", store: str = "steam") -> Program:
    folder = path.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    return Program(store=store, path=path, installdir=folder, name=name, appid=appid, kind=program_kind(kind))


def classify_case(case: dict[str, Any], rules: tuple[CompiledRule, ...] = ()) -> Classification:
    system = System(case["os"])
    programs = [
        program(entry["path"], entry["name"], entry["appid"], entry["kind"], entry["store"])
        for entry in case.get("libraries", [])
    ]
    described = Process(
        identity=ProcessIdentity(1, 1),
        exe=case["exe"],
        argv=tuple(case["argv"]),
        env=case["env"],
        parent_name=case["parent"],
        cwd=case.get("cwd", ""),
    )
    return classify(described, system, LibraryIndex(programs, system), rules)


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_every_described_process_gets_its_verdict(case: dict[str, Any]) -> None:
    found = classify_case(case)
    assert found.verdict == case["verdict"], found
    for field, value in case.get("want", {}).items():
        if field == "alias":
            assert value in found.aliases
        else:
            assert getattr(found, field) == value


def test_ids_of_the_cases_are_unique() -> None:
    assert len(BY_ID) == len(CASES) > 200


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_every_game_has_a_name_a_root_and_a_place_and_says_which_rule_spoke(case: dict[str, Any]) -> None:
    found = classify_case(case)
    assert found.rule
    assert found.is_holding == (found.verdict is Verdict.GAME)
    if found.verdict is Verdict.GAME:
        assert found.name
        assert found.place
        assert found.root in found.keys


@pytest.mark.parametrize(
    "variable",
    ["SteamAppId", "SteamGameId", "HEROIC_APP_NAME", "LUTRIS_GAME_UUID", "GAMEID", "bundle_category"],
)
def test_an_inherited_variable_alone_makes_no_game(variable: str) -> None:
    env = {variable: "public.app-category.games" if variable == "bundle_category" else "1145360"}
    for exe in ("/usr/lib/firefox/firefox", "/home/ada/bin/tool", "/usr/games/cowsay", "/usr/bin/python3"):
        assert classify(process(exe, env=env), System.LINUX).verdict is Verdict.NOT
    assert classify(process(r"C:\Tools\tool.exe", env=env), System.WINDOWS).verdict is Verdict.NOT
    assert classify(process("/Users/ada/bin/tool", env=env), System.MACOS).verdict is Verdict.NOT


def test_v23_wallpaper_engine_and_runtimes_are_no_games_and_games_outside_steam_are() -> None:
    wallpaper = process(r"C:\Program Files (x86)\Steam\steamapps\common\wallpaper_engine\wallpaper64.exe")
    runtime = process(f"{COMMON}/SteamLinuxRuntime_sniper/pressure-vessel/bin/pressure-vessel-wrap")
    outside = process(r"C:\XboxGames\Halo Infinite\Content\HaloInfinite.exe")
    assert classify(wallpaper, System.WINDOWS).verdict is Verdict.NOT
    assert classify(runtime, System.LINUX).verdict is Verdict.NOT
    assert classify(outside, System.WINDOWS).verdict is Verdict.GAME


# -- one running game is one -------------------------------------------------------------------------


@pytest.mark.parametrize("with_library", [False, True])
@pytest.mark.parametrize("with_env", [False, True])
def test_reaper_wine_and_game_of_one_id_share_a_key(with_library: bool, with_env: bool) -> None:
    index = LibraryIndex([program(f"{COMMON}/Hades", "Hades", "1145360")] if with_library else [])
    env = {"SteamAppId": "1145360"} if with_env else {}
    family = [
        process(REAPER, REAPER, "SteamLaunch", "AppId=1145360", "--", f"{COMMON}/Hades/x64/Hades.exe"),
        process(WINE, "Z:" + f"{COMMON}/Hades/x64/Hades.exe".replace("/", "\\"), env=env),
        process(f"{COMMON}/Hades/Hades", env=env),
    ]
    found = [classify(member, System.LINUX, index) for member in family]
    assert {finding.verdict for finding in found} == {Verdict.GAME}
    shared = set.intersection(*(set(finding.keys) for finding in found))
    assert "steam:dir:hades" in shared
    if with_env or with_library:
        assert {finding.root for finding in found} == {"steam:1145360"}


def test_a_shortcuts_reaper_and_its_wine_process_are_one_game() -> None:
    game_id = (2937819203 << 32) | 0x02000000
    reaper = process(REAPER, REAPER, "SteamLaunch", "AppId=2937819203", "--", "/home/ada/old/old.exe")
    wine = process(WINE, r"Z:\home\ada\old\old.exe", env={"SteamAppId": "0", "SteamGameId": str(game_id)})
    assert classify(reaper, System.LINUX).root == classify(wine, System.LINUX).root == "steam:2937819203"


def test_a_bundled_launcher_and_the_game_it_starts_are_one_game() -> None:
    folder = r"C:\Program Files (x86)\Steam\steamapps\common\Cyberpunk 2077"
    launcher = classify(process(rf"{folder}\REDprelauncher.exe"), System.WINDOWS)
    game = classify(process(rf"{folder}\bin\x64\Cyberpunk2077.exe"), System.WINDOWS)
    assert launcher.root == game.root


def test_two_games_in_a_shared_folder_are_two() -> None:
    one = classify(process("/usr/games/supertuxkart"), System.LINUX)
    other = classify(process("/usr/games/openttd"), System.LINUX)
    assert one.root != other.root


# -- the user's rules --------------------------------------------------------------------------------


def judged(
    rule: dict[str, Any], described: Process, system: System = System.LINUX, **more: Any
) -> Classification:
    rules = compile_rules([GameRule(**rule)], home="/home/ada")
    return classify(described, system, more.get("index", LibraryIndex((), system)), rules)


HADES = process(f"{COMMON}/Hades/Hades", env={"SteamAppId": "1145360"})
HADES_REAPER = process(REAPER, REAPER, "SteamLaunch", "AppId=1145360", "--", f"{COMMON}/Hades/Hades")
HADES_WINE = process(WINE, r"Z:\home\ada\.local\share\Steam\steamapps\common\Hades\x64\Hades.exe")


@pytest.mark.parametrize(
    ("matcher", "matching", "other"),
    [
        ({"exe": "Hades"}, HADES, process(f"{COMMON}/Celeste/Celeste")),
        ({"exe": f"{COMMON}/Hades/Hades"}, HADES, process(f"{COMMON}/Hades/other")),
        ({"exe": f"{COMMON}/Hades/Hades"}, HADES_REAPER, process(f"{COMMON}/Hades 2/Hades")),
        ({"exe": "hades.exe"}, HADES_WINE, HADES),
        ({"name": "hades"}, HADES, process(f"{COMMON}/Hades II/Hades2")),
        ({"name": "Hades"}, HADES_REAPER, process(f"{COMMON}/Celeste/Celeste")),
        (
            {"appid": "1145360"},
            HADES_REAPER,
            process(REAPER, REAPER, "SteamLaunch", "AppId=11453", "--", "/x"),
        ),
        ({"appid": 1145360}, HADES, process(f"{COMMON}/Celeste/Celeste")),
        ({"root": f"{COMMON}/Hades"}, HADES, process(f"{COMMON}/Hades II/Hades2")),
        ({"root": f"{COMMON}/Hades/"}, HADES_REAPER, process(f"{COMMON}/Hades II/Hades2")),
        ({"root": "~/.local/share/Steam/steamapps/common/Hades"}, HADES_WINE, process("/home/ada/x")),
        ({"root": "steam:1145360"}, HADES_REAPER, process(f"{COMMON}/Celeste/Celeste")),
        ({"root": "steam:dir:hades"}, HADES_WINE, process(f"{COMMON}/Celeste/Celeste")),
        (
            {"argv_regex": r"AppId=1145360\b"},
            HADES_REAPER,
            process("/usr/bin/true", "true", "AppId=11453601"),
        ),
        ({"exe": "Hades", "appid": "1145360"}, HADES, process(f"{COMMON}/Hades/Hades")),
    ],
)
def test_a_rule_matches_what_it_names_and_nothing_else(
    matcher: dict[str, Any], matching: Process, other: Process
) -> None:
    rule = {**matcher, "verdict": Verdict.LAUNCHER}
    assert judged(rule, matching).verdict is Verdict.LAUNCHER
    assert judged(rule, matching).rule == "user rule 1"
    assert judged(rule, other).rule != "user rule 1"


@pytest.mark.parametrize(
    ("exe", "system"),
    [(r"c:\games\FOO\Foo.EXE", System.WINDOWS), ("/APPLICATIONS/foo.app/contents/macos/FOO", System.MACOS)],
)
def test_rules_ignore_case_where_the_system_does(exe: str, system: System) -> None:
    root = r"C:\Games\foo" if system is System.WINDOWS else "/Applications/Foo.app"
    for matcher in (
        {"root": root},
        {"exe": "foo.exe" if system is System.WINDOWS else "foo"},
        {"name": "FOO"},
    ):
        assert judged({**matcher, "action": Action.ON}, process(exe), system).verdict is Verdict.GAME
    assert judged({"root": "/srv/Foo", "action": Action.ON}, process("/srv/foo/x")).verdict is Verdict.NOT


def test_off_on_and_ask_alone_mean_never_always_and_a_question() -> None:
    off = judged({"name": "Hades", "action": Action.OFF}, HADES)
    assert (off.verdict, off.action, off.is_holding) == (Verdict.NOT, Action.OFF, False)
    assert off.root == "steam:1145360"
    on = judged({"exe": "/usr/bin/glxgears", "action": Action.ON}, process("/usr/bin/glxgears"))
    assert (on.verdict, on.is_holding) == (Verdict.GAME, True)
    assert on.root == "/usr/bin/glxgears"
    ask = judged({"name": "Hades", "action": Action.ASK}, HADES)
    assert (ask.verdict, ask.action, ask.is_holding) == (Verdict.GAME, Action.ASK, False)
    ask_tool = judged({"exe": "vim", "action": Action.ASK}, process("/usr/bin/vim"))
    assert ask_tool.verdict is Verdict.NOT


def test_a_verdict_with_off_stays_but_never_holds() -> None:
    found = judged({"name": "Hades", "verdict": Verdict.GAME, "action": Action.OFF}, HADES)
    assert (found.verdict, found.is_holding) == (Verdict.GAME, False)


def test_off_for_a_game_covers_its_reaper_and_its_wine_process() -> None:
    for matcher in ({"root": f"{COMMON}/Hades"}, {"name": "Hades"}, {"root": "steam:dir:hades"}):
        for member in (HADES, HADES_REAPER, HADES_WINE):
            assert judged({**matcher, "action": Action.OFF}, member).verdict is Verdict.NOT


def test_on_for_a_game_does_not_make_games_of_the_helpers_beside_it() -> None:
    handler = process(f"{COMMON}/Hades/crashpad_handler")
    assert judged({"root": f"{COMMON}/Hades", "action": Action.ON}, handler).verdict is Verdict.NOT
    assert judged({"exe": "crashpad_handler", "action": Action.ON}, handler).verdict is Verdict.GAME
    assert judged({"exe": "crashpad_handler", "verdict": Verdict.GAME}, handler).verdict is Verdict.GAME


def test_the_users_rule_comes_before_the_built_in_ones() -> None:
    steamvr = process(
        REAPER, REAPER, "SteamLaunch", "AppId=250820", "--", f"{COMMON}/SteamVR/bin/vrmonitor.sh"
    )
    assert judged({"appid": 250820, "action": Action.ON}, steamvr).verdict is Verdict.GAME
    assert judged({"name": "Hades", "verdict": Verdict.GPU_APP}, HADES).verdict is Verdict.GPU_APP


def test_the_first_matching_rule_wins() -> None:
    rules = compile_rules(
        [
            GameRule(exe="nothing", action=Action.OFF),
            GameRule(root=COMMON, action=Action.OFF),
            GameRule(name="Hades", verdict=Verdict.GAME),
        ]
    )
    found = classify(HADES, System.LINUX, LibraryIndex(), rules)
    assert (found.verdict, found.rule) == (Verdict.NOT, "user rule 2")


@pytest.mark.parametrize(
    ("rule", "param"),
    [
        (GameRule(argv_regex="(", action=Action.ON), "games.rules.1.argv_regex"),
        (GameRule(argv_regex="x" * 1001, action=Action.ON), "games.rules.1.argv_regex"),
        (GameRule(argv_regex="a{99999999999}", action=Action.ON), "games.rules.1.argv_regex"),
        (GameRule(action=Action.ON), "games.rules.1"),
        (GameRule(exe="  ", action=Action.ON), "games.rules.1"),
        (GameRule(exe="x"), "games.rules.1"),
    ],
)
def test_a_rule_that_cannot_work_is_refused_with_its_place(rule: GameRule, param: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        compile_rules([GameRule(exe="fine", action=Action.ON), rule])
    assert caught.value.param == param
    assert caught.value.remedy


def test_a_pattern_never_meets_more_than_the_start_of_a_command_line() -> None:
    far = process("/usr/bin/x", "x", "a" * 5000, "needle")
    near = process("/usr/bin/x", "x", "a" * 2000, "needle")
    assert judged({"argv_regex": "needle", "action": Action.ON}, near).verdict is Verdict.GAME
    assert judged({"argv_regex": "needle", "action": Action.ON}, far).verdict is Verdict.NOT


def test_rules_convert_from_plain_settings() -> None:
    settings = {"exe": None, "appid": 7, "verdict": None, "action": "ask", "name": None, "root": None}
    assert msgspec.convert(settings, GameRule) == GameRule(appid=7, action=Action.ASK)


# -- the library index ---------------------------------------------------------------------------------


def test_the_innermost_program_holds_a_path_and_neighbours_do_not() -> None:
    outer, inner = program("/g/A", "A"), program("/g/A/tools/B", "B")
    index = LibraryIndex([outer, inner], System.LINUX)
    assert index.containing("/g/A/x") == outer
    assert index.containing("/g/A/tools/B/x") == inner
    assert index.containing("/g/A") == outer
    assert index.containing("/g/A2/x") is None
    assert index.containing("/g/a/x") is None
    assert index.containing("/g/a/x", ignore_case=True) == outer
    assert index.containing("/g") is None


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("game", ProgramKind.GAME),
        (" Game ", ProgramKind.GAME),
        ("demo", ProgramKind.DEMO),
        ("Application", ProgramKind.APPLICATION),
        ("software", ProgramKind.APPLICATION),
        ("tool", ProgramKind.TOOL),
        ("runtime", ProgramKind.TOOL),
        ("dlc", ProgramKind.EXTRA),
        ("", ProgramKind.EXTRA),
    ],
)
def test_a_stores_words_for_kinds_are_understood(word: str, kind: ProgramKind) -> None:
    assert program_kind(word) is kind


@pytest.mark.parametrize(
    "strange",
    [
        process(""),
        Process(identity=ProcessIdentity(1, 1)),
        process("/", "/"),
        process("reaper", "reaper", "SteamLaunch"),
        process(REAPER, REAPER, "SteamLaunch", "AppId=" + "9" * 19, "--"),
        process(REAPER, REAPER, "SteamLaunch", "AppId=1", "AppId=2", "--", "/x"),
        process("\udcff/\udcfe", "\udcff"),
        process("/usr/bin/wine", "wine", "\x00", "", "C:"),
        process("/usr/bin/box64", "box64", "box64", "box64"),
        process("/usr/bin/java", "java", "-jar"),
        process("C:", "C:\\"),
        process("//", "..", cwd=".."),
        process("/x/" + "a/" * 2000, env={"SteamAppId": "²", "SteamGameId": "9" * 30}),
    ],
)
@pytest.mark.parametrize("system", list(System))
def test_strange_processes_are_judged_without_an_error(strange: Process, system: System) -> None:
    rules = compile_rules([GameRule(root="/", action=Action.ASK), GameRule(exe="C:\\", action=Action.OFF)])
    assert classify(strange, system).verdict in Verdict
    assert classify(strange, system, LibraryIndex([program("/x", "x")], system), rules).verdict in Verdict


def test_a_file_name_that_is_no_text_still_gives_findings_that_can_be_sent() -> None:
    exe = f"{COMMON}/H\udce9ros/h\udce9ros"  # Latin-1 on the disk, as Python reads it
    found = classify(process(exe), System.LINUX)
    assert found.verdict is Verdict.GAME
    assert msgspec.json.decode(msgspec.json.encode(found))["name"] == "H?ros"


def test_a_verdict_is_cheap_enough_for_every_exec_of_the_machine() -> None:
    index = LibraryIndex(program(f"{COMMON}/Game {n}", f"Game {n}", str(n + 10)) for n in range(2000))
    rules = compile_rules([GameRule(name=f"Other {n}", action=Action.OFF) for n in range(10)])
    for case_id in ("shell-in-game", "firefox-from-game", "wine-z", "reaper-gamescope", "gradle"):
        described = BY_ID[case_id]
        subject = process(
            described["exe"], *described["argv"], env=described["env"], parent=described["parent"]
        )
        seconds = min(
            timeit.repeat(lambda p=subject: classify(p, System.LINUX, index, rules), number=50, repeat=3)
        )
        assert (
            seconds / 50 < 0.001
        )  # far above the usual 20 µs: catches a scan of the index, not a slow machine


def test_the_demos_game_is_one_for_the_demos_own_valet_only() -> None:
    folder = "/tmp/tray-valet-demo-x1/library/steamapps/common/Lantern Keep"
    process = Process(
        identity=ProcessIdentity(1, 1), exe=f"{folder}/lantern-keep", argv=(f"{folder}/lantern-keep",)
    )
    program = Program(store="steam", path=folder, installdir="Lantern Keep", name="Lantern Keep", appid="9")
    assert classify(process, System.LINUX).verdict is Verdict.NOT
    assert classify(process, System.LINUX, LibraryIndex([program])).verdict is Verdict.GAME
