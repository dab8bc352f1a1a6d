"""Groups and the most models at once."""

from tray_valet.core.config import GroupMode, GroupSettings, ModelsSettings
from tray_valet.core.models import ModelRef
from tray_valet.core.residency import Resident, to_unload_for


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
