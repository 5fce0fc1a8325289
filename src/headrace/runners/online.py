"""The app's online store, made from its URL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.features.codec import RowCodec
from headrace.registry import DEFAULT as CONNECTORS
from headrace.stores.online.base import OnlineStore

if TYPE_CHECKING:
    from headrace.app import App


def online_store(app: App, **options: Any) -> OnlineStore:
    """The store that `app.online` names; a remote one is connected to when it is first used.

    Args:
        app: Whose.
        options: What else the store takes, as which of several writers this is.
    """
    codecs = {name: RowCodec(view, app.streams[view.stream].lateness) for name, view in app.views.items()}
    store: OnlineStore = CONNECTORS.create(
        "online", app.online, app=app.name, codecs=codecs, expires=not app.event_time, **options
    )
    return store
