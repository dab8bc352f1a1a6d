"""Steam's libraries, read from real trees of folders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tray_valet.core.games import LibraryIndex, ProgramKind, Verdict, classify
from tray_valet.core.processes import Process, ProcessIdentity, System
from tray_valet.sensing.steam import SteamLibraries, discover_roots
from tray_valet.sensing.vdf_files import VDF_MAX_BYTES, VdfError, read_vdf


def install(
    library: Path, appid: int, installdir: str, name: str | None = None, *, tool: bool = False
) -> Path:
    """Put a program into a library as Steam does and return its manifest."""
    steamapps = library / "steamapps"
    folder = steamapps / "common" / installdir
    folder.mkdir(parents=True, exist_ok=True)
    if tool:
        (folder / "toolmanifest.vdf").write_text('"manifest"\n{\n\t"version"\t\t"2"\n}\n')
    manifest = steamapps / f"appmanifest_{appid}.acf"
    manifest.write_text(
        f'"AppState"\n{{\n\t"appid"\t\t"{appid}"\n\t"universe"\t\t"1"\n\t"name"\t\t"{name or installdir}"\n'
        f'\t"StateFlags"\t\t"4"\n\t"installdir"\t\t"{installdir}"\n\t"UserConfig"\n\t{{\n\t}}\n}}\n',
        encoding="utf-8",
    )
    return manifest


def list_libraries(root: Path, *libraries: Path | str) -> Path:
    blocks = "".join(
        f'\t"{number}"\n\t{{\n\t\t"path"\t\t"{library}"\n\t\t"apps"\n\t\t{{\n\t\t\t"10"\t\t"100"\n\t\t}}\n\t}}\n'
        for number, library in enumerate(libraries)
    )
    place = root / "steamapps" / "libraryfolders.vdf"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(f'"libraryfolders"\n{{\n{blocks}}}\n', encoding="utf-8")
    return place


def kinds(libraries: SteamLibraries) -> dict[str, ProgramKind]:
    return {program.appid: program.kind for program in libraries.scan().programs}


def test_every_library_that_steam_lists_is_read(tmp_path: Path) -> None:
    root, second = tmp_path / "Steam", tmp_path / "second library"
    install(root, 1145360, "Hades")
    install(second, 1086940, "Baldurs Gate 3", "Baldur's Gate 3")
    list_libraries(root, root, second)
    scan = SteamLibraries([root]).scan()
    assert scan.problems == ()
    found = {program.appid: program for program in scan.programs}
    assert found["1145360"].path == str(root.resolve() / "steamapps" / "common" / "Hades")
    assert (found["1086940"].name, found["1086940"].installdir) == ("Baldur's Gate 3", "Baldurs Gate 3")
    assert {program.store for program in scan.programs} == {"steam"}


def test_the_old_form_of_the_library_list_is_read_too(tmp_path: Path) -> None:
    root, second = tmp_path / "Steam", tmp_path / "second"
    install(root, 1, "One")
    install(second, 2, "Two")
    text = f'"LibraryFolders"\n{{\n\t"TimeNextStatsReport"\t"1"\n\t"1"\t\t"{second}"\n}}\n'
    (root / "steamapps" / "libraryfolders.vdf").write_text(text)
    assert set(kinds(SteamLibraries([root]))) == {"1", "2"}


@pytest.mark.parametrize("named", [".", "steamapps"])
def test_an_added_folder_may_be_a_library_or_its_steamapps(tmp_path: Path, named: str) -> None:
    install(tmp_path / "lib", 570, "dota 2 beta")
    assert set(kinds(SteamLibraries([], [tmp_path / "lib" / named]))) == {"570"}


def test_an_added_steam_folder_brings_the_libraries_it_lists(tmp_path: Path) -> None:
    install(tmp_path / "Steam", 1, "One")
    install(tmp_path / "other", 2, "Two")
    list_libraries(tmp_path / "Steam", tmp_path / "Steam", tmp_path / "other")
    assert set(kinds(SteamLibraries([], [tmp_path / "Steam"]))) == {"1", "2"}


def test_an_added_folder_that_is_no_library_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    scan = SteamLibraries([], [tmp_path / "photos", tmp_path / "missing"]).scan()
    assert [Path(problem.path).name for problem in scan.problems] == ["photos", "missing"]


def test_a_library_on_a_drive_that_is_not_mounted_is_reported_and_the_rest_is_read(tmp_path: Path) -> None:
    root = tmp_path / "Steam"
    install(root, 1, "One")
    list_libraries(root, root, "/mnt/unplugged/SteamLibrary")
    scan = SteamLibraries([root]).scan()
    assert [program.appid for program in scan.programs] == ["1"]
    assert [problem.path for problem in scan.problems] == ["/mnt/unplugged/SteamLibrary"]
    assert "mounted" in scan.problems[0].reason


@pytest.mark.parametrize(
    ("appid", "installdir", "name", "kind"),
    [
        (1145360, "Hades", "Hades", ProgramKind.GAME),
        (228980, "Steamworks Shared", "Steamworks Common Redistributables", ProgramKind.TOOL),
        (1628350, "SteamLinuxRuntime_sniper", "Steam Linux Runtime 3.0 (sniper)", ProgramKind.TOOL),
        (1493710, "Proton - Experimental", "Proton Experimental", ProgramKind.TOOL),
        (99999001, "Proton 42.0", "Proton 42.0", ProgramKind.TOOL),
        (99999002, "SteamLinuxRuntime_next", "Steam Linux Runtime next", ProgramKind.TOOL),
        (250820, "SteamVR", "SteamVR", ProgramKind.TOOL),
        (431960, "wallpaper_engine", "Wallpaper Engine", ProgramKind.TOOL),
        (896660, "Valheim dedicated server", "Valheim Dedicated Server", ProgramKind.TOOL),
        (365670, "Blender", "Blender", ProgramKind.APPLICATION),
        (404790, "Godot Engine", "Godot Engine", ProgramKind.APPLICATION),
        (99999003, "Hollow Demo", "Hollow Demo", ProgramKind.DEMO),
    ],
)
def test_tools_runtimes_and_applications_are_told_from_games(
    tmp_path: Path, appid: int, installdir: str, name: str, kind: ProgramKind
) -> None:
    install(tmp_path, appid, installdir, name)
    assert kinds(SteamLibraries([tmp_path])) == {str(appid): kind}


def test_a_tool_manifest_in_the_folder_makes_a_tool(tmp_path: Path) -> None:
    install(tmp_path, 99999004, "Luxtorpeda", tool=True)
    assert kinds(SteamLibraries([tmp_path])) == {"99999004": ProgramKind.TOOL}


GOOD = b'"AppState"\n{\n\t"appid"\t"9"\n\t"name"\t"Nine"\n\t"installdir"\t"Nine"\n}\n'


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"\x00" * 400, "empty"),
        (GOOD[:40], "cut off"),
        (GOOD[:-2], "cut off"),
        (GOOD[:-6], "cut off"),
        (b"\xff\xfe" + GOOD.decode().encode("utf-16-le"), "UTF-8"),
        (GOOD.replace(b"Nine", b"N\xe9uf"), "UTF-8"),
        (b"\x00\x01AppState" + GOOD, "binary"),
        (b'"Other"\n{\n}\n', "AppState"),
        (b'"AppState"\t"text"\n', "AppState"),
        (GOOD.replace(b'"9"', b'"nine"'), "appid"),
        (GOOD.replace(b'"installdir"\t"Nine"', b'"installdir"\t"../../etc"'), "installdir"),
        (GOOD.replace(b'"installdir"\t"Nine"', b'"installdir"\t".."'), "installdir"),
        (GOOD.replace(b'"installdir"\t"Nine"\n', b""), "installdir"),
        (b'"a"\n{\n' * 5000, "nested"),
        (b"@" * 100 + b"\n" * 50, "line 1"),
        (b'"key" "never closed\n' + b"text\n" * 200_000, "line 1"),
        (GOOD + b" " * VDF_MAX_BYTES, "larger"),
        (b"}\n" + GOOD, "damaged"),
    ],
)
def test_a_broken_manifest_is_skipped_with_its_reason_and_the_others_are_read(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    install(tmp_path, 1, "One")
    broken = tmp_path / "steamapps" / "appmanifest_9.acf"
    broken.write_bytes(content)
    scan = SteamLibraries([tmp_path]).scan()
    assert [program.appid for program in scan.programs] == ["1"]
    assert [problem.path for problem in scan.problems] == [str(broken.resolve())]
    assert reason in scan.problems[0].reason


def test_a_manifest_in_other_letters_and_line_ends_is_read(tmp_path: Path) -> None:
    install(tmp_path, 1, "One")
    text = '"appstate"\r\n{\r\n"AppID" "9"\r\n"Name" "Café “9”"\r\n"InstallDir" "Café"\r\n}\r\n'
    (tmp_path / "steamapps" / "appmanifest_9.acf").write_bytes(b"\xef\xbb\xbf" + text.encode())
    names = {program.appid: program.name for program in SteamLibraries([tmp_path]).scan().programs}
    assert names == {"1": "One", "9": "Café “9”"}


def test_links_in_a_circle_pipes_and_folders_in_place_of_manifests_are_reported(tmp_path: Path) -> None:
    install(tmp_path, 1, "One")
    steamapps = tmp_path / "steamapps"
    (steamapps / "appmanifest_2.acf").symlink_to("appmanifest_3.acf")
    (steamapps / "appmanifest_3.acf").symlink_to("appmanifest_2.acf")
    os.mkfifo(steamapps / "appmanifest_4.acf")
    (steamapps / "appmanifest_5.acf").mkdir()
    (steamapps / "libraryfolders.vdf").symlink_to("libraryfolders.vdf")
    scan = SteamLibraries([tmp_path]).scan()
    assert [program.appid for program in scan.programs] == ["1"]
    assert {Path(problem.path).name for problem in scan.problems} == {
        "appmanifest_2.acf",
        "appmanifest_3.acf",
        "appmanifest_4.acf",
        "appmanifest_5.acf",
        "libraryfolders.vdf",
    }


def test_a_library_folder_that_links_to_itself_is_no_library(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "steamapps").symlink_to("steamapps")
    scan = SteamLibraries([], [tmp_path / "lib"]).scan()
    assert scan.programs == ()
    assert len(scan.problems) == 1


def test_a_library_reached_over_several_links_is_read_once(tmp_path: Path) -> None:
    install(tmp_path / "Steam", 1, "One")
    (tmp_path / "link").symlink_to("Steam")
    list_libraries(tmp_path / "Steam", tmp_path / "link", tmp_path / "Steam")
    scan = SteamLibraries([tmp_path / "Steam", tmp_path / "link"], [tmp_path / "link"]).scan()
    assert [program.appid for program in scan.programs] == ["1"]


def test_what_is_installed_renamed_or_removed_later_is_seen_without_a_restart(tmp_path: Path) -> None:
    first = install(tmp_path, 1, "One")
    libraries = SteamLibraries([tmp_path])
    assert set(kinds(libraries)) == {"1"}
    install(tmp_path, 2, "Two")
    assert set(kinds(libraries)) == {"1", "2"}
    install(tmp_path, 1, "One", "One: the longer name")
    assert {p.name for p in libraries.scan().programs} == {"One: the longer name", "Two"}
    first.unlink()
    assert set(kinds(libraries)) == {"2"}
    install(tmp_path / "added", 3, "Three")
    list_libraries(tmp_path, tmp_path, tmp_path / "added")
    assert set(kinds(libraries)) == {"2", "3"}


def test_an_unchanged_manifest_is_not_read_again(tmp_path: Path) -> None:
    manifest = install(tmp_path, 1, "One")
    libraries = SteamLibraries([tmp_path])
    before = libraries.scan().programs
    state = manifest.stat()
    manifest.write_bytes(b"x" * state.st_size)  # the same size, inode and time: nobody can tell
    os.utime(manifest, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert libraries.scan().programs == before
    os.utime(manifest, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert libraries.scan().programs == ()


@pytest.mark.parametrize(
    "place",
    [
        ".local/share/Steam",
        ".steam/debian-installation",
        ".var/app/com.valvesoftware.Steam/.local/share/Steam",
        ".var/app/com.valvesoftware.Steam/data/Steam",
        "snap/steam/common/.local/share/Steam",
    ],
)
def test_steam_is_found_where_distributions_put_it(tmp_path: Path, place: str) -> None:
    install(tmp_path / place, 1, "One")
    assert discover_roots(System.LINUX, tmp_path) == ((tmp_path / place).resolve(),)


def test_links_of_the_steam_client_lead_to_one_root(tmp_path: Path) -> None:
    install(tmp_path / ".local/share/Steam", 1, "One")
    (tmp_path / ".steam").mkdir()
    (tmp_path / ".steam/steam").symlink_to(tmp_path / ".local/share/Steam")
    (tmp_path / ".steam/root").symlink_to(tmp_path / ".local/share/Steam")
    assert len(discover_roots(System.LINUX, tmp_path)) == 1


def test_steam_is_found_on_macos_and_missing_steam_is_fine(tmp_path: Path) -> None:
    assert discover_roots(System.MACOS, tmp_path) == ()
    assert discover_roots(System.LINUX, tmp_path) == ()
    assert SteamLibraries(discover_roots(System.LINUX, tmp_path)).scan().programs == ()
    root = tmp_path / "Library/Application Support/Steam"
    install(root, 1, "One")
    assert discover_roots(System.MACOS, tmp_path) == (root.resolve(),)


def test_a_process_in_a_scanned_library_is_judged_by_it(tmp_path: Path) -> None:
    install(tmp_path, 1145360, "Hades", "Hades (2020)")
    install(tmp_path, 99999004, "Odd Helper Kit", tool=True)
    index = LibraryIndex(SteamLibraries([tmp_path]).scan().programs, System.LINUX)

    def judge(installdir: str) -> tuple[Verdict, str, str]:
        exe = str(tmp_path.resolve() / "steamapps" / "common" / installdir / "run")
        found = classify(Process(identity=ProcessIdentity(1, 1), exe=exe, argv=(exe,)), System.LINUX, index)
        return found.verdict, found.name, found.root

    assert judge("Hades") == (Verdict.GAME, "Hades (2020)", "steam:1145360")
    assert judge("Odd Helper Kit")[0] is Verdict.NOT


def test_a_missing_file_is_told_as_one_error(tmp_path: Path) -> None:
    with pytest.raises(VdfError, match="cannot be read"):
        read_vdf(tmp_path / "none.vdf")
