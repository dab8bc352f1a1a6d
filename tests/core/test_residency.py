"""Groups and the most models at once."""

from tray_valet.core.config import GroupMode, GroupSettings, ModelsSettings
from tray_valet.core.models import ModelRef
from tray_valet.core.residency import Resident, has_to_wait, to_unload_for


def ref(name: str) -> ModelRef:
    return ModelRef("p", name)


def resident(name: str, used_s: float = 0.0, busy: bool = False) -> Resident:
    return Resident(ref=ref(name), last_used_s=used_s, is_busy=busy)


def group(mode: GroupMode, *models: str) -> GroupSettings:
    return GroupSettings(mode=mode, models=models)


def test_the_least_recently_used_leaves_when_the_most_is_reached() -> None:
    settings = ModelsSettings(max_concurrent=2)
    present = [resident("a", 5.0), resident("b", 1.0)]
    assert to_unload_for(ref("c"), present, settings) == (ref("b"),)
    assert to_unload_for(ref("a"), present, settings) == ()


def test_a_busy_model_does_not_leave_for_the_number() -> None:
    settings = ModelsSettings(max_concurrent=1)
    assert to_unload_for(ref("c"), [resident("a", busy=True)], settings) == ()


def test_members_of_a_swap_group_exclude_each_other_only() -> None:
    settings = ModelsSettings(groups={"big": group(GroupMode.SWAP, "a", "p/b")})
    assert to_unload_for(ref("b"), [resident("a"), resident("z")], settings) == (ref("a"),)
    assert to_unload_for(ref("z"), [resident("a")], settings) == ()


def test_an_exclusive_group_has_the_machine_to_itself() -> None:
    settings = ModelsSettings(groups={"solo": group(GroupMode.EXCLUSIVE, "a", "b")})
    assert to_unload_for(ref("a"), [resident("b"), resident("z")], settings) == (ref("z"),)
    assert to_unload_for(ref("z"), [resident("a")], settings) == (ref("a"),)


def test_a_pinned_model_stays_whoever_comes() -> None:
    settings = ModelsSettings(
        max_concurrent=1,
        groups={"p": group(GroupMode.PINNED, "a"), "solo": group(GroupMode.EXCLUSIVE, "b")},
    )
    assert to_unload_for(ref("b"), [resident("a")], settings) == ()
    assert to_unload_for(ref("c"), [resident("a")], settings) == ()


def test_a_load_waits_while_as_many_as_there_may_be_are_busy_or_on_their_way() -> None:
    settings = ModelsSettings(max_concurrent=2)
    busy = [resident("a", busy=True)]
    assert not has_to_wait(ref("c"), busy, (), settings)
    assert has_to_wait(ref("c"), busy, (ref("b"),), settings)
    assert has_to_wait(ref("c"), [*busy, resident("b", busy=True)], (), settings)
    assert not has_to_wait(ref("a"), [*busy, resident("b", busy=True)], (ref("a"),), settings), (
        "its own place"
    )
    assert not has_to_wait(ref("b"), busy, (ref("b"),), settings)


def test_a_load_waits_for_one_on_its_way_that_its_group_excludes() -> None:
    settings = ModelsSettings(groups={"big": group(GroupMode.SWAP, "a", "b")})
    assert has_to_wait(ref("a"), [], (ref("b"),), settings)
    assert not has_to_wait(ref("c"), [], (ref("b"),), settings)


def test_nobody_waits_for_pinned_models_which_never_leave() -> None:
    settings = ModelsSettings(max_concurrent=1, groups={"p": group(GroupMode.PINNED, "a")})
    assert not has_to_wait(ref("c"), [resident("a", busy=True)], (), settings)
    assert has_to_wait(ref("c"), [resident("a")], (ref("b"),), settings)
