"""The DICOMweb servers of the settings, with the secrets that open them."""

from __future__ import annotations

from services.dicom_client.dicomweb import DicomWebServer
from services.dicom_client.keeping import Keeper
from services.dicom_client.settings import Dicomweb, Stow, Web


def pulled_from(chosen: Dicomweb, keeper: Keeper) -> DicomWebServer | None:
    """Where series are fetched; None where the settings name no address."""
    return _server(chosen, keeper, "dicomweb", chosen.largest_bytes)


def stored_at(chosen: Stow, keeper: Keeper) -> DicomWebServer | None:
    """Where structure sets are stored; None where the settings name no address."""
    return _server(chosen, keeper, "stow", 4 << 30)


def _server(
    chosen: Web, keeper: Keeper, name: str, largest_bytes: int
) -> DicomWebServer | None:
    if not chosen.url:
        return None
    return DicomWebServer(
        chosen.url,
        # With a user the password counts, and a token that was kept before does not.
        token="" if chosen.user else keeper.secret(f"{name}-token") or "",
        user=chosen.user,
        password=keeper.secret(f"{name}-password") or "",
        ca_bundle=chosen.ca_bundle,
        timeout_s=chosen.timeout_s,
        largest_bytes=largest_bytes,
    )
