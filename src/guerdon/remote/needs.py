"""Which heavy parts of a sample travel: those that the reward reads.

Text and plain metadata always travel, so that a routed or conditional reward finds what it asks
for. Media and token ids stay here where the server says that nothing reads them, and so does
metadata that means something only in this process; where it is read, its sample fails by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import msgspec
from msgspec.structs import replace

from guerdon.injection import SYNONYMS
from guerdon.outcome import EMPTY
from guerdon.sample import NO_MEDIA, Sample
from guerdon.wire.portable import find_unportable

MEDIA = ("images", "videos", "audios")
TOKENS = ("prompt_token_ids", "response_token_ids", "response_mask")
WHOLE = frozenset({"sample", "samples", "metadata", "*"})
"""Needs that cover everything."""


class Needs(msgspec.Struct, frozen=True):
    """What a reward reads from a sample.

    Attributes:
        names: its parameters, metadata keys among them; None where nothing is known.
    """

    names: frozenset[str] | None = None

    @classmethod
    def of(cls, listed: Iterable[str], *, has_parts: bool = False) -> Needs:
        """From the card of a reward; plurals and synonyms count as what they mean.

        Args:
            listed: what the card says.
            has_parts: of a composition, whose conditions may read anything.

        Example:
            >>> sorted(Needs.of(["completion_ids", "level"]).names)
            ['completion_id', 'completion_ids', 'level', 'response_token_ids']
        """
        if has_parts:
            return cls()
        names = set(listed)
        names |= {name.removesuffix("s") for name in names if name not in MEDIA}
        names |= {SYNONYMS[name] for name in names if name in SYNONYMS}
        return cls(None if names & WHOLE else frozenset(names))

    def trimmed(self, sample: Sample) -> Sample:
        """The sample without the heavy parts that nothing reads; itself where there are none."""
        names = self.names
        if names is None:
            return sample
        changes: dict[str, Any] = {}
        if not sample.images is sample.videos is sample.audios is NO_MEDIA:
            changes.update({f: NO_MEDIA for f in MEDIA if getattr(sample, f) and f not in names})
        for field in TOKENS:
            if getattr(sample, field) is not None and field not in names:
                changes[field] = None
        if sample.metadata is not EMPTY:
            kept = self._metadata(sample.metadata)
            if len(kept) < len(sample.metadata):
                changes["metadata"] = kept
        return replace(sample, **changes) if changes else sample

    def _metadata(self, metadata: Mapping[str, Any]) -> Mapping[str, Any]:
        names = cast("frozenset[str]", self.names)
        return {
            key: value
            for key, value in metadata.items()
            if key in names or find_unportable(value, "") is None
        }
