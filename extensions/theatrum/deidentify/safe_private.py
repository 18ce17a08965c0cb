"""Private attributes that are known to hold no identity, by creator and element.

The list is PS3.15 table E.3.10-1 (edition 2026d) as `data/safe_private.json`, and what
the profile adds. Bytes of any meaning (OB, OW) are left out of it, though the table has
some: nobody can look into them. A block of private elements is claimed by its creator
(PS3.5 7.8.1), so the same attribute has another tag in another file; it is looked up by
creator, group and the last two digits of its element.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from theatrum.deidentify.elements import Element
from theatrum.deidentify.profile import Profile, SafePrivate
from theatrum.deidentify.rules import TEXT_VRS, load_data
from theatrum.deidentify.values import fits

_BLOCKS: Final = range(0x10, 0x100)


@dataclass(frozen=True)
class SafeList:
    """VRs of the attributes that may stay, by (creator, group, low byte)."""

    vrs: dict[tuple[str, int, int], str]

    @classmethod
    def of(cls, profile: Profile) -> SafeList:
        """The shipped list and the profile's own."""
        return cls(
            {
                (row.creator, int(row.group, 16), int(row.element, 16)): row.vr
                for row in [*_shipped(), *profile.safe_private]
            }
        )

    def safe_of(self, elements: Iterable[Element]) -> list[tuple[Element, str]]:
        """The safe private elements of a data set, each with the list's VR.

        The creators that they need are among them, without a VR to look at. An
        implicit file says no VR, and so the list's counts. Elements of VR UN get the VR
        of the list. A value that cannot be one of its VR goes; codes, text, UIDs and
        sequences are the caller's to clean.
        """
        creators: dict[tuple[int, int], Element] = {}
        needed: dict[int, Element] = {}
        safe: list[tuple[Element, str]] = []
        for element in elements:
            group, number = element.tag >> 16, element.tag & 0xFFFF
            if not group & 1:
                continue
            if number in _BLOCKS:
                creators[group, number] = element
                continue
            creator = creators.get((group, number >> 8))
            if creator is None or creator.items is not None or element.fragments:
                continue
            name = creator.value.decode("latin-1").strip(" \0")
            vr = self.vrs.get((name, group, number & 0xFF))
            if vr is None or element.vr not in (vr, "UN", ""):
                continue
            if vr == "SQ":
                needed[creator.tag] = creator
                safe.append((element, vr))  # UN stays: its items are implicit VR
                continue
            if element.items is not None:
                continue
            if vr not in TEXT_VRS and vr != "CS" and not fits(element, vr):
                continue
            needed[creator.tag] = creator
            safe.append((replace(element, vr=vr if element.vr else ""), vr))
        return [*((creator, "") for creator in needed.values()), *safe]


def _shipped() -> list[SafePrivate]:
    table: dict[str, dict[str, dict[str, str]]] = load_data("safe_private.json")[
        "attributes"
    ]
    return [
        SafePrivate(creator=creator, group=group, element=element, vr=vr)
        for creator, groups in table.items()
        for group, vrs in groups.items()
        for vr, elements in vrs.items()
        for element in elements.split()
    ]
