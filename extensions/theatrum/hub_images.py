"""The images of a hub's catalogue that this person may see, as a Python collection.

The kernel asks with its own hub token. An image that is absent and one that belongs to
others answer the same.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from theatrum.errors import ImageError, NoSuchImage, Unreachable
from theatrum.image import Image, fetch
from theatrum.results import AnalysisResult, result_from_json
from theatrum.session import Session, current_session
from theatrum.view import View, timestamp, view_from_json

SHOWN = 24
"""Thumbnails in the HTML form: more make the notebook's file larger."""

THUMBNAIL_PX = 128


@dataclass(frozen=True)
class Catalog:
    """The catalogue service as one session sees it."""

    session: Session

    def ask(self, route: str, *, method: str = "GET", **query: str) -> Any:
        """Return a route's JSON; Any because each route has its own form."""
        return self._fetch(f"{self._url}/api/v1/{route}", method, query).json()

    def view(self, image_id: str) -> View:
        """Ask for an image's geometry and a fresh capability."""
        described = self.ask(f"images/{quote(image_id, safe='')}/view", method="POST")
        tiles = described["tiles"]
        prefix = tiles.removesuffix("{z}/{x}/{y}")
        return view_from_json(
            described,
            kernel_url=f"{self.session.host_url}{prefix}",
            tiles=tiles,
            expires=timestamp(described["expires"]),
        )

    def results(self, image_id: str) -> tuple[AnalysisResult, ...]:
        """Return what analyses found on an image, the newest first."""
        answer = self.ask(f"images/{quote(image_id, safe='')}/results")
        return tuple(result_from_json(one) for one in answer["results"])

    def thumbnail(self, image_id: str) -> bytes:
        """Return the JPEG that the catalogue shows for an image."""
        route = f"{self._url}/api/v1/images/{quote(image_id, safe='')}/thumbnail"
        jpeg: bytes = self._fetch(route, "GET", {}).content
        return jpeg

    def structures(self, image_id: str) -> bytes:
        """Return the structure set of a teaching case, as DICOM."""
        route = f"{self._url}/api/v1/images/{quote(image_id, safe='')}/structures"
        dicom: bytes = self._fetch(route, "GET", {}).content
        return dicom

    def add_case(self, package: Iterable[bytes], **query: str) -> str:
        """Send a case, a zip in pieces; returns the new image's id."""
        route = f"{self._url}/api/v1/images/cases"
        answer = self._fetch(route, "POST", query, package).json()
        return str(answer["id"])

    @property
    def _url(self) -> str:
        if self.session.catalog_url is None:
            raise Unreachable(
                "This notebook runs outside a hub, so that there is no catalogue. "
                "Open a slide by its path instead: SlideViewer('slide.svs').",
                title="No catalogue is known",
            )
        return self.session.catalog_url

    def _fetch(
        self,
        url: str,
        method: str,
        query: Mapping[str, str],
        content: Iterable[bytes] | None = None,
    ) -> Any:
        token = self.session.token
        headers = {"Authorization": f"token {token}"} if token else {}
        return fetch(url, query, method=method, headers=headers, content=content)


@dataclass(frozen=True)
class CatalogImage:
    """An image of the catalogue, by its id, as a source that can be renewed."""

    catalog: Catalog
    id: str

    def view(self) -> View:
        """Ask the catalogue, which checks the right to the image each time."""
        return self.catalog.view(self.id)

    def results(self) -> tuple[AnalysisResult, ...]:
        """Ask the catalogue for what analyses found on the image."""
        return self.catalog.results(self.id)


@dataclass(frozen=True)
class Entry:
    """One line of the catalogue: what is known of an image before it is opened."""

    id: str
    name: str
    collection: str
    title: str
    width: int
    height: int
    mpp_x: float | None
    mpp_y: float | None
    version: str

    def open(self) -> Image:
        """Open the image."""
        return Image(CatalogImage(Catalog(current_session()), self.id))

    def thumbnail(self) -> Any:
        """Return a small picture (PIL; Any because it is loaded only here)."""
        import PIL.Image

        jpeg = Catalog(current_session()).thumbnail(self.id)
        with PIL.Image.open(io.BytesIO(jpeg)) as picture:
            return picture.convert("RGB")


class Images:
    """The catalogue: `images["histology101/ihc"]`, `images.list()`, or a loop."""

    def __getitem__(self, key: str) -> Image:
        """Open an image by `collection/name` or by its id."""
        catalog = Catalog(current_session())
        collection, slash, name = key.partition("/")
        if not slash:
            return Image(CatalogImage(catalog, key))
        found = _find(collection=collection, name=name)
        if not found:
            raise NoSuchImage(
                f"No image {key!r} is open to you. images.list() shows those that are."
            )
        if len(found) > 1:
            ids = ", ".join(entry.id for entry in found)
            raise NoSuchImage(
                f"{len(found)} images are called {key!r}: use one of the ids {ids}.",
                title="This name means several images",
            )
        return Image(CatalogImage(catalog, found[0].id))

    def list(self, collection: str | None = None) -> Sequence[Entry]:
        """Return what you may see, in one collection or in all."""
        return _find(collection or "")

    def __iter__(self) -> Iterator[Entry]:
        return iter(_find())

    def __len__(self) -> int:
        return len(_find())

    def __repr__(self) -> str:
        try:
            entries = _find()
        except ImageError as error:
            return f"<images: {error}>"
        return "\n".join(
            [f"{len(entries)} images", *(f"  {e.collection}/{e.name}" for e in entries)]
        )

    def _repr_html_(self) -> str:
        try:
            entries = _find()
        except ImageError as error:
            return f"<p>{html.escape(str(error))}</p>"
        cards = "".join(_card(entry) for entry in entries[:SHOWN])
        rest = len(entries) - SHOWN
        more = f"<p>... and {rest} more: images.list()</p>" if rest > 0 else ""
        return (
            '<div style="display:flex;flex-wrap:wrap;gap:12px">'
            f"{cards or '<p>No image is open to you.</p>'}</div>{more}"
        )


def _find(collection: str = "", name: str = "") -> list[Entry]:
    """Return what there is, by collection and name."""
    catalog = Catalog(current_session())
    query = {"limit": "1000", "state": "ready", "sort": "project__name,name"}
    if collection:
        query["project__name"] = collection
    if name:
        query["name"] = name
    entries: list[Entry] = []
    while True:
        answer = catalog.ask("images", **query)
        entries.extend(_entry(image) for image in answer["items"])
        if not answer["next"]:
            return entries
        query["cursor"] = answer["next"]


def _entry(image: Mapping[str, Any]) -> Entry:
    return Entry(**{field: image[field] for field in Entry.__dataclass_fields__})


def _card(entry: Entry) -> str:
    """Return a thumbnail with its name, as HTML that needs no further request.

    The picture is inside the page (a data URL): fetched by the page it would need the
    hub's cookies, and many at once on first view collide in sign-in.
    """
    name = html.escape(f"{entry.collection}/{entry.name}")
    try:
        picture = entry.thumbnail()
    except ImageError as error:
        image = f"<small>{html.escape(error.title)}</small>"
    else:
        picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
        jpeg = io.BytesIO()
        picture.save(jpeg, "JPEG", quality=80)
        encoded = base64.b64encode(jpeg.getvalue()).decode()
        image = f'<img alt="{name}" src="data:image/jpeg;base64,{encoded}">'
    return (
        f'<figure style="margin:0;width:{THUMBNAIL_PX + 16}px">{image}'
        f"<figcaption><b>{html.escape(entry.title or entry.name)}</b><br>"
        f"<code>{name}</code></figcaption></figure>"
    )


images = Images()
