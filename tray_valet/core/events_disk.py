"""Facts of the disk: models that are downloaded to it or deleted from it.

Decides: which facts there are of it and what each carries (bytes, seconds). Must not: word them
(`fact_sentences.py` does).
"""

from __future__ import annotations

import msgspec

from tray_valet.core.downloads import Download


class DownloadProgressed(msgspec.Struct, frozen=True, kw_only=True, tag="download_progress"):
    """How far a download is. Comes several times a second at most; the newest says it all."""

    download: Download


class DownloadFinished(msgspec.Struct, frozen=True, kw_only=True, tag="download_finished"):
    """A model is on the disk."""

    id: str
    provider: str
    model: str
    size_bytes: int
    took_s: float


class DownloadFailed(msgspec.Struct, frozen=True, kw_only=True, tag="download_failed"):
    """A model could not be downloaded, and it is not tried again by itself."""

    id: str
    provider: str
    model: str
    message: str  # with the remedy


class DownloadCancelled(msgspec.Struct, frozen=True, kw_only=True, tag="download_cancelled"):
    """The user took a download back."""

    id: str
    provider: str
    model: str


class ModelDeleted(msgspec.Struct, frozen=True, kw_only=True, tag="model_deleted"):
    """The user had a model deleted from the disk."""

    provider: str
    model: str
    size_bytes: int = 0


DiskFact = DownloadProgressed | DownloadFinished | DownloadFailed | DownloadCancelled | ModelDeleted
