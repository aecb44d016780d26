"""Sizes that are unknown until a graph runs: integer polynomials over named sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

__all__ = [
    "Atom",
    "Dim",
    "Dims",
    "Fact",
    "Size",
    "Symbol",
    "evaluate",
    "fact_of",
    "floor_div",
    "numbers",
    "simpler",
    "symbols_of",
]


# What a graph can make of sizes is bounded: beyond this they count as unknown.
_MAX_TERMS = 64
_MAX_DEGREE = 16
_MAX_NUMBER = 2**62
_MAX_TEXT = 1000


@dataclass(frozen=True)
class Symbol:
    """One free size: a name such as "height"."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Quotient:
    """`numerator // divisor`, rounded down, where the division is not exact for certain."""

    numerator: Dim
    divisor: Size

    def __str__(self) -> str:
        return f"(({self.numerator})//({self.divisor}))"


Atom: TypeAlias = "Symbol | Quotient"
Monomial = tuple[Atom, ...]


@dataclass(frozen=True)
class Dim:
    """A sum of products, `terms` = ((atoms, coefficient), ...) in a canonical order.

    Sums, differences and products of Dims and ints are Dims, or ints where nothing free is left;
    they raise OverflowError where they become absurdly long.
    Two Dims that are equal as polynomials are equal as objects.
    """

    terms: tuple[tuple[Monomial, int], ...]

    @staticmethod
    def symbol(name: str) -> Dim:
        """The free size called `name`."""
        return Dim((((Symbol(name),), 1),))

    def __add__(self, other: Size) -> Size:
        return _collect(self.terms + _terms(other))

    def __radd__(self, other: int) -> Size:
        return self + other

    def __neg__(self) -> Size:
        return self * -1

    def __sub__(self, other: Size) -> Size:
        return self + other * -1

    def __rsub__(self, other: int) -> Size:
        return self * -1 + other

    def __mul__(self, other: Size) -> Size:
        return _collect(tuple((a + b, m * n) for a, m in self.terms for b, n in _terms(other)))

    def __rmul__(self, other: int) -> Size:
        return self * other

    def __floordiv__(self, other: Size) -> Size:
        return floor_div(self, other)

    def __str__(self) -> str:
        return self._text

    __repr__ = __str__

    @cached_property
    def _text(self) -> str:
        parts = []
        for atoms, coefficient in self.terms:
            factors = [str(coefficient)] if coefficient != 1 or not atoms else []
            parts.append("*".join(factors + [str(atom) for atom in atoms]))
        return " + ".join(parts)


Size: TypeAlias = "int | Dim"
Dims = tuple[Size, ...]


def floor_div(a: Size, b: Size) -> Size:
    """a // b; written as a polynomial where the division leaves no rest."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    quotient: Size = 0
    rest: Size = a
    (lead, divisor), *_ = _terms(b)
    for _ in range(_MAX_TERMS):
        if rest == 0:
            return quotient
        (monomial, coefficient), *_ = _terms(rest)
        left = list(monomial)
        if coefficient % divisor or any(_missing(left, atom) for atom in lead):
            break
        part = _collect(((tuple(left), coefficient // divisor),))
        quotient, rest = quotient + part, rest - part * b
    numerator = a if isinstance(a, Dim) else Dim((((), a),))
    if len(str(numerator)) + len(str(b)) > _MAX_TEXT:
        raise OverflowError("a size is too complicated")
    return Dim((((Quotient(numerator, b),), 1),))


@dataclass(frozen=True)
class Fact:
    """`count * quotient == equal` holds whenever the graph runs."""

    quotient: Quotient
    count: int
    equal: Size

    def applied(self, size: Size) -> Size:
        """`size` with the quotient replaced, in every term where the count divides."""
        for _ in range(_MAX_TERMS):
            for atoms, coefficient in _terms(size):
                if self.quotient in atoms and coefficient % self.count == 0:
                    left = list(atoms)
                    left.remove(self.quotient)
                    others = _collect(((tuple(left), coefficient // self.count),))
                    size = size - _collect(((atoms, coefficient),)) + others * self.equal
                    break
            else:
                break
        return size


def fact_of(a: Size, b: Size) -> Fact | None:
    """What `a == b` says about a quotient in the longer of the two."""
    simple = simpler(a, b)
    other = b if simple is a else a
    for atoms, coefficient in _terms(other):
        if len(atoms) == 1 and isinstance(atoms[0], Quotient) and atoms[0] not in _atoms(simple):
            return Fact(atoms[0], coefficient, simple - (other - _collect(((atoms, coefficient),))))
    return None


def _atoms(size: Size) -> list[Atom]:
    return [atom for atoms, _ in _terms(size) for atom in atoms]


def evaluate(size: Size, values: Mapping[str, int]) -> int:
    """The number that `size` has when the free sizes have `values`. Raises KeyError for others."""
    if isinstance(size, int):
        return size
    total = 0
    for atoms, coefficient in size.terms:
        for atom in atoms:
            if isinstance(atom, Symbol):
                coefficient *= values[atom.name]
            else:
                coefficient *= evaluate(atom.numerator, values) // evaluate(atom.divisor, values)
        total += coefficient
    return total


def symbols_of(size: Size) -> Iterator[str]:
    """Names of the free sizes in `size`, with repetitions."""
    if isinstance(size, int):
        return
    for atoms, _ in size.terms:
        for atom in atoms:
            if isinstance(atom, Symbol):
                yield atom.name
            else:
                yield from symbols_of(atom.numerator)
                yield from symbols_of(atom.divisor)


def numbers(dims: Dims) -> tuple[int, ...] | None:
    """The sizes where none is free."""
    found = tuple(size for size in dims if isinstance(size, int))
    return found if len(found) == len(dims) else None


def simpler(a: Size, b: Size) -> Size:
    """Of two sizes that must be equal when the graph runs, the one that is written shorter."""
    if isinstance(a, int) or isinstance(b, int):
        return a if isinstance(a, int) else b
    return a if (len(str(a)), str(a)) <= (len(str(b)), str(b)) else b


def _terms(size: Size) -> tuple[tuple[Monomial, int], ...]:
    return size.terms if isinstance(size, Dim) else (((), int(size)),)


def _missing(atoms: list[Atom], atom: Atom) -> bool:
    """Takes `atom` out of `atoms`; True when it was not there."""
    if atom not in atoms:
        return True
    atoms.remove(atom)
    return False


def _collect(terms: tuple[tuple[Monomial, int], ...]) -> Size:
    sums: dict[Monomial, int] = {}
    for atoms, coefficient in terms:
        key = tuple(sorted(atoms, key=str))
        sums[key] = sums.get(key, 0) + coefficient
    kept = {atoms: n for atoms, n in sums.items() if n}
    if not kept:
        return 0
    if len(kept) > _MAX_TERMS or any(
        len(atoms) > _MAX_DEGREE or abs(n) > _MAX_NUMBER for atoms, n in kept.items()
    ):
        raise OverflowError("a size is too complicated")
    if kept.keys() == {()}:
        return kept[()]
    order = sorted(kept.items(), key=lambda term: (-len(term[0]), [str(atom) for atom in term[0]]))
    return Dim(tuple(order))
