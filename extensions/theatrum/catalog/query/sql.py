"""A question as SQL: one `Select` for rows, one for a count.

Conditions on related rows become `IN (SELECT ...)`: a row is found once however many
related rows fit, and the database begins at whichever end is smaller. Fields that are
shown or sorted by are joined to the left, so that rows without a related one stay.

`exclude` is the whole of the rest: where nothing is known a condition is not true, and
its opposite is (`IS NOT TRUE`).

Every table that a question touches is narrowed to the projects that the asker may see,
and to rows that are not deleted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Integer,
    Select,
    String,
    and_,
    cast,
    collate,
    false,
    func,
    or_,
    select,
    true,
)
from sqlalchemy.sql.selectable import Join

from theatrum.catalog.errors import BadQuery
from theatrum.catalog.query import text
from theatrum.catalog.query.fields import (
    ORDER,
    OWNERS,
    RESOURCE_OF,
    SHARED,
    Way,
    column_name,
    table_of,
    unknown,
    way,
)
from theatrum.catalog.query.lookups import LOOKUPS, Target, compare, unknown_lookup
from theatrum.catalog.query.spec import Leaf, Parameter, Q, Spec
from theatrum.catalog.tables import Base, ImageText

Condition = ColumnElement[bool]
# Any: a column of any type
Expression = ColumnElement[Any]
# Any: of whatever columns
Rows = Select[*tuple[Any, ...]]
Projects = frozenset[str] | None
"""The names of the projects that the asker may see; None for all."""

THINGS = (
    *("image", "source_file", "acquisition", "data_table", "asset"),
    *("roi", "measurement", "subject", "sample"),
)
"""Tables whose rows go into runs, or come out of them."""
SEARCH = "search"
"""A field of images alone: their words."""


@dataclass(frozen=True)
class Compiler:
    """What questions are compiled for."""

    dialect: str
    projects: Projects = None

    def rows(self, spec: Spec) -> Rows:
        """The rows, or the values, that a question finds, in its order."""
        root = table_of(spec.of)
        tables = Joined(self, root)
        query: Rows
        if spec.values:
            query = select(
                *(tables.field(path).label(path) for path in spec.values)
            ).select_from(root)
        else:
            query = select(*root.columns)
        order = () if spec.distinct and spec.values else self._order(spec, tables)
        query = query.select_from(tables.source).where(self.found(spec, root))
        if spec.distinct and spec.values:
            query = self._distinct(query, spec)
        else:
            query = query.order_by(*order)
        if spec.offset:
            query = query.offset(spec.offset)
        return query if spec.limit is None else query.limit(spec.limit)

    def count(self, spec: Spec) -> Rows:
        """How many rows a question finds, after its slice."""
        root = table_of(spec.of)
        if spec.limit is None and not spec.offset and not spec.values:
            query = select(func.count()).select_from(root)
            return query.where(self.found(spec, root))
        inner = self.rows(spec).order_by(None).subquery()
        return select(func.count()).select_from(inner)

    def found(self, spec: Spec, root: FromClause) -> Condition:
        """The condition on the root's rows."""
        parts = [self.condition(root, spec.of, q) for q in spec.where]
        return and_(self.visible(root, spec.of), *parts)

    # Who sees what

    def visible(
        self, table: FromClause, name: str, *, owned: bool = False
    ) -> Condition:
        """The rows of a table that are there and that the asker may see.

        `owned`: the row that they belong to is known to be visible.
        """
        name = _table_name(name)
        columns = table.c
        parts: list[Condition] = []
        if "deleted_at" in columns:
            parts.append(columns.deleted_at.is_(None))
        if name in OWNERS and not owned:
            parts.append(self._owner_visible(table, name))
        if self.projects is not None:
            parts += self._in_projects(table, name)
            if name in ("run_input", "run_output"):
                parts += self._things_visible(table)
        return and_(true(), *parts)

    def _owner_visible(self, table: FromClause, name: str) -> Condition:
        column = Base.metadata.tables[name].c[OWNERS[name]]
        (key,) = column.foreign_keys
        owner = key.column.table.alias()
        inner = select(owner.c.id).where(self.visible(owner, key.column.table.name))
        return table.c[column.name].in_(inner)

    def _in_projects(self, table: FromClause, name: str) -> list[Condition]:
        assert self.projects is not None  # noqa: S101
        names = sorted(self.projects)
        if name == "project":
            return [table.c.name.in_(names)]
        if "project_id" not in table.c:
            return []  # its owner is looked at
        project = Base.metadata.tables["project"].alias()
        inner = select(project.c.id).where(project.c.name.in_(names))
        mine = table.c.project_id.in_(inner)
        return [or_(mine, table.c.project_id.is_(None)) if name in SHARED else mine]

    def _things_visible(self, table: FromClause) -> list[Condition]:
        """What went into a run, or came out of it, may be of another project than it:
        not even its id and checksum are told then."""
        parts: list[Condition] = []
        for kind in THINGS:
            thing = Base.metadata.tables[kind].alias()
            there = (
                select(thing.c.id)
                .where(thing.c.id == table.c.object_id, *self._in_projects(thing, kind))
                .correlate(table)
                .exists()
            )
            parts.append(or_(table.c.object_kind != kind, there))
        return parts

    # Conditions

    def condition(self, table: FromClause, name: str, part: Leaf | Q) -> Condition:
        """A part of a question's conditions on the rows of a table."""
        if isinstance(part, Leaf) or part.op == "and":
            leaves = (part,) if isinstance(part, Leaf) else part.parts
            return self._all(table, _table_name(name), leaves)
        inner = [self.condition(table, name, one) for one in part.parts]
        if part.op == "not":
            return inner[0].is_not(True)
        return or_(false(), *inner)

    def _all(
        self, table: FromClause, name: str, parts: Iterable[Leaf | Q]
    ) -> Condition:
        """All hold; those over one relation are about one related row."""
        conditions: list[Condition] = []
        related: dict[Way, list[Leaf]] = {}
        for part in parts:
            if isinstance(part, Q):
                conditions.append(self.condition(table, name, part))
                continue
            first, _, rest = part.field.partition("__")
            over = way(name, first)
            if over is None:
                conditions.append(self._leaf(table, name, part))
            elif _asks_for_nothing(over, rest, part.value):
                some = Leaf(part.field if rest else f"{first}__isnull", False)
                conditions.append(self._all(table, name, [some]).is_not(True))
            elif rest == "isnull" and not over.many:
                conditions.append(table.c[over.here].is_not(None))
            else:
                inner = _inner_leaves(over, rest, part.value)
                related.setdefault(over, []).extend(inner)
        for over, leaves in related.items():
            conditions.append(self._related(table, over, leaves))
        return and_(true(), *conditions)

    def _related(
        self, table: FromClause, over: Way, leaves: Sequence[Leaf]
    ) -> Condition:
        target = Base.metadata.tables[over.target].alias()
        inner = select(target.c[over.there]).where(
            self._ends(target, over), self._all(target, over.target, leaves)
        )
        return _same_type(table.c[over.here], over).in_(inner)

    def _ends(self, target: FromClause, over: Way) -> Condition:
        """The condition on the rows at a way's end, whatever is asked of them."""
        owned = over.many and OWNERS.get(over.target) == over.there
        return and_(
            self.visible(target, over.target, owned=owned),
            *(target.c[name] == value for name, value in over.fixed),
        )

    def _leaf(self, table: FromClause, name: str, leaf: Leaf) -> Condition:
        first, *rest = leaf.field.split("__")
        if isinstance(leaf.value, Parameter):
            raise BadQuery(f"the query needs a value for {leaf.value.name}")
        if name == "image" and first == SEARCH and not rest:
            return self._search(table, leaf.value)
        if name == "image" and first == "kv" and rest:
            return self._key_value(table, rest, leaf.value)
        column = column_name(name, first)
        if column is None:
            raise unknown(name, first, ("search",) if name == "image" else ())
        target = Target(table.c[column], self.dialect)
        lookup = "exact"
        if rest and rest[-1] in LOOKUPS:
            lookup = rest.pop()
        if rest:
            if target.kind != "json":
                raise unknown_lookup(rest[0], f"{RESOURCE_OF[name]}.{first}")
            if any('"' in key for key in rest):
                raise BadQuery("a key has no quotation mark")
            target = Target(table.c[column], self.dialect, tuple(rest))
        if isinstance(leaf.value, Spec):
            return self._in_query(target, lookup, leaf.value)
        return compare(target, lookup, leaf.value)

    def _in_query(self, target: Target, lookup: str, spec: Spec) -> Condition:
        if lookup not in ("in", "exact") or target.path:
            raise BadQuery("a query as a value goes with in")
        if len(spec.values) > 1:
            raise BadQuery("a query within a query has one value")
        if not spec.values:
            spec = Spec(**{**vars(spec), "values": ("id",)})
        return target.column.in_(self.rows(spec))

    def _search(self, table: FromClause, wanted: Any) -> Condition:
        if not isinstance(wanted, str):
            raise BadQuery("search looks for words")
        lines = select(ImageText.image_id).where(text.matches(wanted, self.dialect))
        return table.c.id.in_(lines)

    def _key_value(self, table: FromClause, rest: list[str], value: Any) -> Condition:
        """`kv__stain="HE"`: an image's value for a key, by its text or its number."""
        lookup = rest.pop() if len(rest) > 1 and rest[-1] in LOOKUPS else "exact"
        by_number = isinstance(value, int | float) and not isinstance(value, bool)
        if isinstance(value, tuple) and value:
            by_number = all(isinstance(one, int | float) for one in value)
        column = "number" if by_number else "text"
        leaves = [
            Leaf("key", "__".join(rest)),
            Leaf(f"{column}__{lookup}", value),
        ]
        over = way("image", "key_values")
        assert over is not None  # noqa: S101
        return self._related(table, over, leaves)

    # Order

    def _distinct(self, query: Rows, spec: Spec) -> Rows:
        """Of equal values one, in their order; what is not shown cannot sort them."""
        inner = query.distinct().subquery()
        order = spec.order or spec.values
        for path in order:
            if path.lstrip("-") not in spec.values:
                raise BadQuery(f"distinct values are sorted by themselves, not {path}")
        return select(*inner.c).order_by(
            *(
                self._ranked(inner.c[path.lstrip("-")], path.startswith("-"))
                for path in order
            )
        )

    def _order(self, spec: Spec, tables: Joined) -> list[Expression]:
        root = tables.root
        name = _table_name(spec.of)
        order = spec.order or ORDER.get(
            name, ("created_at",) if "created_at" in root.c else ()
        )
        ranked = [
            self._ranked(tables.field(path.lstrip("-"), one=True), path.startswith("-"))
            for path in order
        ]
        # Where all else is equal, the key decides: a slice is the same each time.
        return ranked + [self._ranked(key, False) for key in root.primary_key]

    def _ranked(self, value: Expression, last_first: bool) -> Expression:
        if self.dialect != "sqlite" and isinstance(value.type, String):
            value = collate(value, "C")
        ranked = value.desc() if last_first else value.asc()
        return ranked.nulls_last() if getattr(value, "nullable", True) else ranked


@dataclass
class Joined:
    """A root and what is joined to it on the left, each way once."""

    compiler: Compiler
    root: FromClause
    source: FromClause | Join = field(init=False)
    multiplies: bool = field(init=False, default=False)
    """Whether a way leads to several rows."""
    _at: dict[tuple[str, ...], tuple[FromClause, str]] = field(init=False)

    def __post_init__(self) -> None:
        self.source = self.root
        self._at = {(): (self.root, self.root.name)}  # type: ignore[attr-defined]

    def field(self, path: str, *, one: bool = False) -> Expression:
        """The value at the end of a path; `one`: it must not lead to several rows."""
        here: tuple[str, ...] = ()
        table, name = self._at[()]
        over: Way | None = None
        steps = path.split("__")
        for place, step in enumerate(steps):
            over = way(name, step)
            if over is None:
                return _column(table, name, step, steps[place + 1 :])
            if over.many and one:
                raise BadQuery(f"{path} leads to several rows: there is no order")
            here = (*here, over.name)
            table, name = self._join(table, here, over)
        return table.c[(over.default if over else None) or "id"]

    def _join(
        self, table: FromClause, here: tuple[str, ...], over: Way
    ) -> tuple[FromClause, str]:
        if here not in self._at:
            target = Base.metadata.tables[over.target].alias()
            ends = self.compiler._ends(target, over)
            here_ = _same_type(table.c[over.here], over)
            on = and_(here_ == target.c[over.there], ends)
            self.source = self.source.outerjoin(target, on)
            self._at[here] = target, over.target
            self.multiplies = self.multiplies or over.many
        return self._at[here]


def _same_type(column: Expression, over: Way) -> Expression:
    """A number as text where what points at any row keeps ids as text."""
    there = Base.metadata.tables[over.target].c[over.there]
    if isinstance(column.type, Integer) and isinstance(there.type, String):
        return cast(column, String)
    return column


def _column(table: FromClause, name: str, step: str, rest: Sequence[str]) -> Expression:
    column = column_name(name, step)
    if column is None:
        raise unknown(name, step)
    value = table.c[column]
    if not rest:
        return value
    if Target(value, "").kind != "json":
        raise unknown(name, f"{step}__{rest[0]}")
    return value[tuple(rest)]


def _table_name(name: str) -> str:
    return table_of(name).name if name not in Base.metadata.tables else name


def _asks_for_nothing(over: Way, rest: str, value: Any) -> bool:
    """Whether it is asked that there is no related row, or that it says nothing."""
    if value not in (True, "true", "1"):
        return value is None and rest == ""
    if over.many:
        return rest == "isnull"
    return rest == "isnull" or rest.endswith("__isnull")


def _inner_leaves(over: Way, rest: str, value: Any) -> list[Leaf]:
    """What is asked of the related rows."""
    if rest == "isnull":
        return []
    first = rest.partition("__")[0]
    if not rest or (first in LOOKUPS and column_name(over.target, first) is None):
        by_name = over.default is not None and not _is_number(value)
        key = over.default if by_name else "id"
        return [Leaf(f"{key}__{rest}" if rest else f"{key}", value)]
    return [Leaf(rest, value)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
