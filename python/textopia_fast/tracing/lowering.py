"""From a recorded trace to a program: noise placement, splitting of long sums, register allocation.

A trace assigns every value once. Values are numbers; `kinds[value]` is "x" (latent), "e" (network
output), "u" (the negative half of an output; `halves` says of which) or "n" (a unit normal draw;
numbered in the order in which the sampler drew).
"""

from __future__ import annotations

from collections import Counter
from heapq import heappop, heappush
from typing import Any, NamedTuple

from .program import (
    MAX_OPERANDS,
    Blend,
    Clamp,
    Combine,
    Denoise,
    Instruction,
    LangevinStep,
    Register,
    Step,
    Threshold,
)
from .symbols import CANCELLED

__all__ = ["Lowered", "Node", "draws_used", "lower", "operand_count"]

# A preview that is rewritten in terms of the new latent may amplify rounding by at most this.
_REWRITE_LIMIT = 16.0


class Node(NamedTuple):
    """One recorded operation.

    `operands` maps values to weights (weight 1.0 where none applies), `facts` are the other fields
    of the instruction, `draw` is the noise value that the operation draws itself (or -1).
    """

    kind: type
    dst: int
    operands: dict[int, float]
    facts: tuple[Any, ...]
    draw: int = -1


class Lowered(NamedTuple):
    """The parts of a Program that lowering decides."""

    instructions: tuple[Instruction, ...]
    x_registers: int
    e_registers: int
    result: Register


def lower(
    nodes: list[Node], kinds: list[str], halves: dict[int, int], initial: int, result: int
) -> Lowered:
    """Makes instructions of `nodes`; new values are appended to `kinds`.

    `halves` maps "u" values to the "e" values whose registers they are read from.
    """
    nodes = _place_noise(nodes, kinds)
    nodes = _split(nodes, kinds)
    nodes = _rewrite_previews(nodes, kinds, result)
    return _allocate(nodes, kinds, halves, initial, result)


def draws_used(nodes: list[Node], kinds: list[str]) -> list[int]:
    """The noise values that are drawn, in the order of the draws."""
    used = {node.draw for node in nodes if node.draw >= 0}
    for node in nodes:
        used.update(v for v, weight in node.operands.items() if weight and kinds[v] == "n")
    return sorted(used)


def operand_count(weights: dict[int, float], kinds: list[str]) -> int:
    """How many latents a kernel reads for a sum: both guidance halves of a network output."""
    return sum(2 if kinds[value] == "e" else 1 for value in weights)


def _new(kinds: list[str]) -> int:
    kinds.append("x")
    return len(kinds) - 1


def _place_noise(nodes: list[Node], kinds: list[str]) -> list[Node]:
    """Gives each COMBINE at most one fresh draw, and keeps the draws in the sampler's order.

    A draw used once, by the COMBINE whose turn it is, is drawn there. Any other is drawn into a
    latent of its own before the first instruction that needs it or a later draw. A draw that nobody
    uses is dropped.
    """
    uses = Counter(v for node in nodes for v in node.operands if kinds[v] == "n")
    for node in nodes:
        if node.draw >= 0:
            uses[node.draw] += 1
    pending = sorted(uses, reverse=True)  # next draw last
    stored: dict[int, int] = {}  # noise value -> latent that holds it
    out: list[Node] = []
    for node in nodes:
        wanted = [v for v in node.operands if kinds[v] == "n" and v not in stored]
        if node.draw >= 0:
            wanted.append(node.draw)
        last = max(wanted, default=-1)
        fresh = node.draw
        while pending and pending[-1] <= last:
            value = pending.pop()
            if value == last and value == node.draw:
                continue
            if value == last and node.kind is Combine and uses[value] == 1:
                fresh = value
                continue
            stored[value] = _new(kinds)
            out.append(Node(Combine, stored[value], {}, (), value))
        if wanted or any(v in stored for v in node.operands):
            operands: dict[int, float] = {}
            noise = 0.0
            for value, weight in node.operands.items():
                if value == fresh:
                    noise = weight
                else:
                    operands[stored.get(value, value)] = weight
            facts = (noise,) if node.kind is Combine else node.facts
            node = Node(node.kind, node.dst, operands, facts, fresh)
        elif node.kind is Combine:
            node = node._replace(facts=(0.0,))
        out.append(node)
    return [n if n.facts or n.kind is not Combine else n._replace(facts=(1.0,)) for n in out]


def _split(nodes: list[Node], kinds: list[str]) -> list[Node]:
    """Breaks sums that read more than MAX_OPERANDS latents into several COMBINEs."""
    out: list[Node] = []
    for node in nodes:
        if node.kind is Combine:
            noise = 1 if node.facts[0] else 0
            if operand_count(node.operands, kinds) + noise > MAX_OPERANDS:
                node = _split_one(node, kinds, out)
        out.append(node)
    return out


def _split_one(node: Node, kinds: list[str], out: list[Node]) -> Node:
    taken: dict[int, float] = {}
    budget = MAX_OPERANDS - (1 if node.facts[0] else 0)  # the noise goes with the last part
    room = budget
    for value, weight in node.operands.items():
        cost = 2 if kinds[value] == "e" else 1
        if cost > room:
            part = _new(kinds)
            out.append(Node(Combine, part, taken, (0.0,)))
            taken = {part: 1.0}
            room = budget - 1
        taken[value] = weight
        room -= cost
    return node._replace(operands=taken)


def _rewrite_previews(nodes: list[Node], kinds: list[str], result: int) -> list[Node]:
    """Lets updates run in place where only a preview would keep the old latent alive.

    After new = a*old + rest, a preview p*old + q is also (p/a)*new + q - (p/a)*rest.
    """
    last_use = {value: i for i, node in enumerate(nodes) for value in node.operands}
    last_use[result] = len(nodes)
    makers: dict[int, tuple[int, Node]] = {}
    out = list(nodes)
    for i, node in enumerate(nodes):
        if node.kind is Combine:
            makers[node.dst] = (i, node)
        if node.kind is not Step or len(node.operands) < 2:
            continue
        new, preview = node.facts[1], dict(node.operands)
        own = preview.pop(new)  # 0 where Step lists its x only to keep it alive
        made_at, maker = makers.get(new, (-1, node))
        if made_at < 0 or maker.facts[0]:
            continue
        for old, weight in maker.operands.items():
            share = preview.get(old, 0.0)
            rest = [v for v in maker.operands if v != old]
            if (
                share
                and last_use[old] == i
                and not any(old in n.operands for n in nodes[made_at + 1 : i])
                and abs(share) <= _REWRITE_LIMIT * abs(weight)
                and all(v in preview or last_use[v] > i for v in rest)
            ):
                factor = share / weight
                del preview[old]
                for value in rest:
                    part = factor * maker.operands[value]
                    left = preview.get(value, 0.0) - part
                    preview[value] = left if abs(left) > CANCELLED * abs(part) else 0.0
                weights = {new: factor + own, **{v: w for v, w in preview.items() if w}}
                if operand_count(weights, kinds) <= MAX_OPERANDS:
                    out[i] = node._replace(operands=weights)
                break
    return out


def _allocate(
    nodes: list[Node], kinds: list[str], halves: dict[int, int], initial: int, result: int
) -> Lowered:
    """Linear scan; the last reader of a value may write its own result over it."""
    last_use = {
        halves.get(value, value): i for i, node in enumerate(nodes) for value in node.operands
    }
    last_use[result] = len(nodes)
    place = {initial: Register("x", 0)}
    free: dict[str, list[int]] = {"x": [], "e": []}
    count = {"x": 1, "e": 0}
    registers: dict[tuple[str, int], Register] = {("x", 0): place[initial]}
    instructions: list[Instruction] = []

    def release(value: int) -> None:
        register = place[value]
        heappush(free[register.kind], register.index)

    def take(value: int) -> None:
        kind = kinds[value]
        if free[kind]:
            index = heappop(free[kind])
        else:
            index, count[kind] = count[kind], count[kind] + 1
        place[value] = registers.setdefault((kind, index), Register(kind, index))

    def source(value: int) -> Register:
        if value not in halves:
            return place[value]
        index = place[halves[value]].index
        return registers.setdefault(("u", index), Register("u", index))

    if initial not in last_use:
        release(initial)
    for i, node in enumerate(nodes):
        sources = {value: source(value) for value in node.operands}
        owners = dict.fromkeys(halves.get(value, value) for value in node.operands)
        dead = [value for value in owners if last_use[value] == i]
        # dst must not overwrite the score.
        late = [node.facts[0]] if node.kind is LangevinStep else []
        for value in dead:
            if value not in late:
                release(value)
        if node.dst >= 0:
            take(node.dst)
        for value in dead:
            if value in late:
                release(value)
        instructions.append(_instruction(node, place, sources))
        if node.dst >= 0 and node.dst not in last_use:
            release(node.dst)
    return Lowered(tuple(instructions), count["x"], count["e"], place[result])


def _instruction(
    node: Node, place: dict[int, Register], sources: dict[int, Register]
) -> Instruction:
    kind, facts = node.kind, node.facts
    if kind is Step:
        index, x = facts
        terms = tuple((sources[v], w) for v, w in node.operands.items() if w != 0.0)
        return Step(index, sources[x], terms)
    dst = place[node.dst]
    if kind is Combine:
        terms = tuple((sources[v], w) for v, w in node.operands.items())
        return Combine(dst, terms, facts[0])
    if kind is Denoise:
        (src,) = sources.values()
        return Denoise(dst, src, *facts)
    if kind is Clamp:
        (src,) = sources.values()
        return Clamp(dst, src, *facts)
    if kind is Threshold:
        (src,) = sources.values()
        return Threshold(dst, src, *facts)
    if kind is Blend:
        (src,) = sources.values()
        return Blend(dst, src, *facts)
    score, factor, norm = facts
    src = next((r for v, r in sources.items() if v != score), sources[score])
    return LangevinStep(dst, src, sources[score], factor, norm)
