"""Notices on macOS for a signed bundle: UserNotifications, with actions, replacement and withdrawal.

Decides: how a notice becomes a request, and its choices a category. Must not: be used outside of a
bundle: there `currentNotificationCenter` ends the process with an exception of its own. Needs
pyobjc-framework-UserNotifications, whose metadata describe the blocks below. Written from Apple's
documentation (https://developer.apple.com/documentation/usernotifications); not run.

The centre may be called from any thread; it calls its delegate on one of its own, which only passes the
answer on to the loop. Handlers need a running main loop, which the tray has.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from typing import Any

from tray_valet.core.notices import ChoiceKind, Notice, Subject, TextLimits, fitted

_TIMEOUT_S = 5.0
_ASK_TIMEOUT_S = 60.0  # the first time the user is asked, and may take a while
_LIMITS = TextLimits(title=80, text=250)
_ALERT_AND_SOUND = (1 << 2) | (1 << 1)  # UNAuthorizationOptions
_BANNER_LIST_SOUND = (1 << 4) | (1 << 3) | (1 << 1)  # UNNotificationPresentationOptions, macOS 11
_DEFAULT_ACTION = "com.apple.UNNotificationDefaultActionIdentifier"

OnResponse = Callable[[str, str], None]  # (request's identifier, action's identifier)


def is_bundle() -> bool:
    """Whether this process runs from a bundle with an identifier, on a macOS that can be asked."""
    try:
        foundation = importlib.import_module("Foundation")
        importlib.import_module("UserNotifications")
    except ImportError:
        return False
    bundle = foundation.NSBundle.mainBundle()
    return bundle.bundleIdentifier() is not None and str(bundle.bundlePath()).endswith(".app")


class BundleNotifier:
    """Implements `core.ports.Notifier`. One a process: an Objective-C class is made once."""

    def __init__(self) -> None:
        self._center: Any = None
        self._categories: dict[str, Any] = {}
        self._delegate: Any = None  # the centre does not keep it alive
        self._on_choice: Callable[[Subject, ChoiceKind], None] = lambda _subject, _choice: None
        self._missing: str | None = None

    @property
    def source(self) -> str:
        return "UserNotifications"

    @property
    def missing_because(self) -> str | None:
        return self._missing

    def listen(self, on_choice: Callable[[Subject, ChoiceKind], None]) -> None:
        self._on_choice = on_choice

    async def show(self, notice: Notice, *, has_sound: bool) -> None:
        if self._center is None and not await self._open():
            return
        request = self._request(fitted(notice, _LIMITS), has_sound)
        error = await _answer_of(
            lambda answer: self._center.addNotificationRequest_withCompletionHandler_(request, answer),
            _TIMEOUT_S,
        )
        if error is None:
            self._missing = "The notification centre did not answer."
        else:
            self._missing = f"The notification centre answered: {error[0]}." if error[0] else None

    async def withdraw(self, subject: Subject) -> None:
        if self._center is not None:
            self._center.removeDeliveredNotificationsWithIdentifiers_([subject.value])

    async def close(self) -> None:
        if self._center is not None:
            self._center.setDelegate_(None)
        self._center = self._delegate = None

    async def _open(self) -> bool:
        """Get the centre and the user's permission; False, with the reason noted, without either."""
        framework = importlib.import_module("UserNotifications")
        center = framework.UNUserNotificationCenter.currentNotificationCenter()
        granted = await _answer_of(
            lambda answer: center.requestAuthorizationWithOptions_completionHandler_(
                _ALERT_AND_SOUND, answer
            ),
            _ASK_TIMEOUT_S,
        )
        if granted is None or not granted[0]:
            self._missing = "Notifications are off for Tray Valet in System Settings."
            return False
        loop = asyncio.get_running_loop()

        def pass_on(subject: str, action: str) -> None:
            loop.call_soon_threadsafe(self._on_response, subject, action)

        self._delegate = _delegate(pass_on)
        center.setDelegate_(self._delegate)
        self._center = center
        return True

    def _request(self, notice: Notice, has_sound: bool) -> Any:
        framework = importlib.import_module("UserNotifications")
        content = framework.UNMutableNotificationContent.alloc().init()
        content.setTitle_(notice.title)
        content.setBody_(notice.text)
        if has_sound:
            content.setSound_(framework.UNNotificationSound.defaultSound())
        buttons = [choice for choice in notice.choices if choice.kind is not ChoiceKind.OPEN]
        if buttons:
            content.setCategoryIdentifier_(notice.subject.value)
            self._set_category(framework, notice.subject.value, buttons)
        return framework.UNNotificationRequest.requestWithIdentifier_content_trigger_(
            notice.subject.value, content, None
        )

    def _set_category(self, framework: Any, identifier: str, buttons: list[Any]) -> None:
        foundation = importlib.import_module("Foundation")
        actions = [
            framework.UNNotificationAction.actionWithIdentifier_title_options_(b.kind.value, b.label, 0)
            for b in buttons
        ]
        make = framework.UNNotificationCategory
        self._categories[identifier] = make.categoryWithIdentifier_actions_intentIdentifiers_options_(
            identifier, actions, [], 0
        )
        # The call replaces all of them: what stands on the screen keeps its buttons.
        self._center.setNotificationCategories_(foundation.NSSet.setWithArray_([*self._categories.values()]))

    def _on_response(self, identifier: str, action: str) -> None:
        kind = ChoiceKind.OPEN.value if action == _DEFAULT_ACTION else action
        if identifier in set(Subject) and kind in set(ChoiceKind):
            self._on_choice(Subject(identifier), ChoiceKind(kind))


async def _answer_of(ask: Callable[[Callable[..., None]], None], timeout_s: float) -> tuple[Any, ...] | None:
    """What a completion handler was given, on whatever thread; None when it was not called in time."""
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[tuple[Any, ...]] = loop.create_future()

    def answer(*values: Any) -> None:
        loop.call_soon_threadsafe(lambda: None if answered.done() else answered.set_result(values))

    ask(answer)
    try:
        async with asyncio.timeout(timeout_s):
            return await answered
    except TimeoutError:
        return None


def _delegate(on_response: OnResponse) -> Any:
    """The centre's delegate: shows notices while we are in front too, and passes answers on."""
    objc = importlib.import_module("objc")
    foundation = importlib.import_module("Foundation")

    def will_present(self: Any, center: Any, notification: Any, handler: Any) -> None:
        handler(_BANNER_LIST_SOUND)

    def did_receive(self: Any, center: Any, response: Any, handler: Any) -> None:
        request = response.notification().request()
        on_response(str(request.identifier()), str(response.actionIdentifier()))
        handler()

    members = {
        "__module__": __name__,
        "userNotificationCenter_willPresentNotification_withCompletionHandler_": will_present,
        "userNotificationCenter_didReceiveNotificationResponse_withCompletionHandler_": did_receive,
    }
    protocols = [objc.protocolNamed("UNUserNotificationCenterDelegate")]
    made = type(foundation.NSObject)(
        "TrayValetNoticeDelegate", (foundation.NSObject,), members, protocols=protocols
    )
    return made.alloc().init()
