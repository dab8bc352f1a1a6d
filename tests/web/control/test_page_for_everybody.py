"""The page in every look: light and dark, wide and narrow, by keyboard and by ear."""

from __future__ import annotations

from typing import Any

import pytest

from tests.web.page_stage import MODELS, Stage, ollama, paused_by_user, paused_for_hades, running
from tests.web.page_visit import Visit, expect
from tray_valet.core import events as ev


def sized(width: int, scheme: str) -> dict[str, Any]:
    return {"viewport": {"width": width, "height": 900}, "color_scheme": scheme}


LOOKS = [sized(1000, "light"), sized(1000, "dark"), sized(400, "light"), sized(400, "dark")]
LOOK_IDS = ["wide-light", "wide-dark", "narrow-light", "narrow-dark"]


# WCAG 2: the ratio of relative luminances, of every visible text against what is painted behind it.
LOW_CONTRAST = """() => {
  const channels = (colour) => (colour.match(/[\\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
  const luminance = (rgb) => {
    const [r, g, b] = rgb
      .map((c) => c / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const [r, g, b, a = 1] = channels(getComputedStyle(at).backgroundColor);
      if (a === 1) return [r, g, b];
    }
    return channels(getComputedStyle(document.documentElement).backgroundColor).slice(0, 3);
  };
  const poor = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.textContent.trim() || !element.checkVisibility()) continue;
    if (element.closest(".vh, noscript, script")) continue;
    const style = getComputedStyle(element);
    const paint = element instanceof SVGElement ? style.fill : style.color;
    const [one, two] = [luminance(channels(paint).slice(0, 3)), luminance(behind(element))];
    const ratio = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
    if (ratio < 4.5) poor.push(`${ratio.toFixed(2)} ${element.textContent.slice(0, 60)}`);
  }
  return poor;
}"""
UNNAMED = """() => [...document.querySelectorAll("button, input, a, table, section, nav, svg[role=img]")]
  .filter((each) => each.checkVisibility())
  .filter((each) => {
    const by = each.getAttribute("aria-labelledby");
    const label = each.getAttribute("aria-label") ?? (by && document.getElementById(by)?.textContent);
    const labels = [...(each.labels ?? [])].map((l) => l.textContent).join("");
    return !(label ?? labels).trim() && !each.textContent.trim();
  })
  .map((each) => each.outerHTML.slice(0, 100))"""


@pytest.mark.parametrize("visit", LOOKS, ids=LOOK_IDS, indirect=True)
@pytest.mark.parametrize("fragment", ["#overview", "#limits"])
def test_in_every_look_text_can_be_read_and_nothing_runs_off_the_side(
    stage: Stage, visit: Visit, fragment: str
) -> None:
    mistake = "Line 14: " + "thresholds.ram_pause_pct" * 6
    for picture in (running(settings_problem=mistake), paused_for_hades(), paused_by_user()):
        stage.show(picture, ev.ModelLoaded(model="m" * 200, took_s=1, size_bytes=2**30))
        page = visit.open(fragment, title=picture.title)
        page.wait_for_timeout(200)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate(LOW_CONTRAST) == []
    assert visit.said == []


@pytest.mark.parametrize("fragment", ["#overview", "#limits"])
def test_every_control_has_a_name_a_size_and_a_visible_focus(
    stage: Stage, visit: Visit, fragment: str
) -> None:
    page = visit.open(fragment)
    expect(page.locator("main button:visible, main input:visible").first).to_be_visible()
    assert page.evaluate(UNNAMED) == []
    controls = page.locator("a[href], button:visible, main input:visible")
    for control in controls.all():
        box = control.bounding_box()
        assert box["height"] >= 23.9, control
    seen = set()
    for _ in range(controls.count()):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.id || document.activeElement.outerHTML"))
        is_range = page.evaluate("document.activeElement.type === 'range'")  # its thumb shows the outline
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert is_range or outline == "solid"
    assert len(seen) == controls.count(), "each can be reached with the keyboard"


def test_a_list_that_is_redrawn_keeps_the_focus(stage: Stage, visit: Visit) -> None:
    page = visit.open()
    page.get_by_role("button", name="Unload llama3.1:8b").focus()
    fewer = tuple(model for model in MODELS if model.name != "qwen2.5:14b")
    stage.show(running(providers=(ollama(*fewer),)))
    expect(page.locator("#models tbody tr")).to_have_count(2)
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Unload llama3.1:8b"


def test_the_theme_follows_the_system_unless_one_is_chosen(stage: Stage, visit: Visit) -> None:
    page = visit.page
    page.emulate_media(color_scheme="dark")
    visit.open()
    theme = "document.documentElement.dataset.theme"
    assert page.evaluate(theme) == "dark"
    page.emulate_media(color_scheme="light")
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    stage.set({"desktop": {"appearance": "dark"}})
    page.reload()
    assert page.evaluate(theme) == "dark", "whatever the system says"
