"""The Modbus driver: plan, ask, decode.

One read of a group, in order: the planned blocks (`modbus_plan`) are asked for over the line (`modbus_line`), each
answer is decoded as a whole (`modbus_codec`), and the values take their tags' places. A block that the device refuses
makes its own tags bad and no others. A unit that does not answer is silent, alone (`modbus_units`); when no unit of the
device answers, or the line is lost, the device is away. Modbus carries no time: a scan's `time_us` is the moment of its
last answer, to the millisecond.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from protocols.field.contract import (
    DeviceAway,
    DeviceRefused,
    DeviceTimeout,
    Group,
    Inspection,
    Quality,
    Scan,
    Tag,
    Tap,
    Value,
    WriteFailed,
)
from protocols.field.modbus_address import place
from protocols.field.modbus_codec import BitDecoder, Encoding, RegisterDecoder, run_of
from protocols.field.modbus_encode import same, write_functions, write_request
from protocols.field.modbus_endpoint import NoConnection, endpoint
from protocols.field.modbus_errors import absent, exception, no_connection, verdict
from protocols.field.modbus_learned import Learned
from protocols.field.modbus_line import GATEWAY_AWAY
from protocols.field.modbus_meaning import Counter, total_of
from protocols.field.modbus_plan import Block, Branch, Limits
from protocols.field.modbus_request import READ_FUNCTION, Request, read_request
from protocols.field.modbus_search import UnitPlan
from protocols.field.modbus_settings import Point, Settings
from protocols.field.modbus_take import CloseTake, Take, evidence, facts, now_us
from protocols.field.modbus_units import FAILURES_PER_READ, Units


@dataclass(frozen=True, slots=True)
class _Reader:
    """What is prepared once for each block: its request, its decoder, and where its values go in the group."""

    request: Request
    decoder: BitDecoder | RegisterDecoder
    indexes: Sequence[int]
    run: slice | None  # the same, where they follow one another
    meanings: Sequence[tuple[int, Point, Counter | None]]  # position in the block, for tags that have one


class ModbusDriver:
    """See the contract. Errors name the device, the protocol, the endpoint and the unit id."""

    def __init__(self, name: str, settings: Settings, groups: Sequence[Group]) -> None:
        self.name = name
        self.requests = 0
        self._settings = settings
        self._link = settings.link
        self._endpoint = endpoint(self._link)
        self._is_connected = False
        self._groups = list(groups)
        self._learned = Learned()
        self._counters_kept: dict[str, Any] = {}
        self._counters: dict[tuple[str, str], Counter] = {}  # group and tag
        self._check_functions()
        self._plans = self._plan_all()
        self._units = Units(frozenset(unit_id for plans in self._plans.values() for unit_id in plans))

    def _check_functions(self) -> None:
        """Raises ValueError with a sentence when a tag needs a function that the device does not know."""
        known = set(self._settings.functions)
        for tag in (tag for group in self._groups for tag in group.tags):
            needs: dict[str, tuple[int, ...]] = {"read": (READ_FUNCTION[tag.address.table],)}
            if tag.address.writable is not None:
                needs["written"] = write_functions(tag.address.table, tag.address.encoding)
            for verb, codes in needs.items():
                if known.isdisjoint(codes):
                    where, listed = self._where(self._settings.unit_id), " or ".join(map(str, codes))
                    raise ValueError(
                        f"{where}: tag {tag.name} is {verb} with function {listed}, which `functions` leaves out; "
                        "add it if the device knows it"
                    )

    def _plan_all(self) -> dict[str, dict[int, UnitPlan[_Reader]]]:
        """Group → unit id → plan. Raises ValueError with a sentence when a tag does not fit into one request."""
        try:
            return {group.name: self._plan(group) for group in self._groups}
        except ValueError as error:
            where = self._where(self._settings.unit_id)
            raise ValueError(f"{where}: {error}; raise max_registers or shorten it") from error

    def _plan(self, group: Group) -> dict[int, UnitPlan[_Reader]]:
        settings = self._settings
        limits = Limits(settings.max_registers, settings.max_bits, settings.max_gap)
        members: dict[int, list[int]] = {}
        for index, tag in enumerate(group.tags):
            members.setdefault(self._unit_id(tag.address), []).append(index)
        return {
            unit_id: UnitPlan(indexes, [group.tags[at].address.span(unit_id) for at in indexes], limits, self._learned)
            for unit_id, indexes in sorted(members.items())
        }

    def _unit_id(self, point: Point) -> int:
        return self._settings.unit_id if point.unit_id is None else point.unit_id

    def _where(self, unit_id: int) -> str:
        link = self._link
        if link.transport == "rtu":
            return f"{self.name} (modbus rtu {link.host}, unit {unit_id})"
        kind = {"udp": "modbus udp", "rtu_over_tcp": "modbus rtu over tcp"}.get(link.transport, "modbus")
        host = f"[{link.host}]" if ":" in link.host else link.host
        return f"{self.name} ({kind} {host}:{link.port}, unit {unit_id})"

    # --- what it keeps over restarts ---

    def recall(self, state: Mapping[str, Any]) -> None:
        """See `Remembers`: the addresses that the device refused, and how far its counters had come."""
        learned, kept = Learned.load(state), state.get("counters", {})
        if not isinstance(kept, dict):
            raise TypeError(f"{kept!r} are no counters")
        totals = {name: total_of(state) for name, state in kept.items()}
        for group in self._groups:
            for tag in group.tags:
                counter, total = self._counter(group, tag), totals.get(f"{group.name}/{tag.name}")
                if counter is not None and total is not None:
                    counter.restore(total)
        self._learned = learned
        self._plans = self._plan_all()

    def memory(self) -> Mapping[str, Any] | None:
        """See `Remembers`. Counters that move are news each time."""
        counters = {
            f"{group}/{tag}": list(counter.state) for (group, tag), counter in self._counters.items() if counter.state
        }
        if not self._learned.changed and counters == self._counters_kept:
            return None
        self._learned.changed, self._counters_kept = False, counters
        return {**self._learned.dump(), "counters": counters}

    def listen(self, tap: Tap | None) -> None:
        """See `Tapped`."""
        self._endpoint.listen(tap)

    # --- the contract's three ---

    async def connect(self) -> None:
        """A new connection in place of any earlier one, or the one that devices at the same endpoint have.

        Raises DeviceAway, and DeviceRefused where those have other settings.
        """
        await self.close()
        where = self._where(self._settings.unit_id)
        try:
            await self._endpoint.connect(self, self._link)
        except (OSError, UnicodeError) as error:  # UnicodeError: no host can have such a name
            raise DeviceAway(f"{where}: {no_connection(error, self._link)}") from error
        except ValueError as error:
            raise DeviceRefused(f"{where}: {error}; give both devices the same.") from error
        self._is_connected = True
        self._units.wake()
        for plans in self._plans.values():
            for unit_plan in plans.values():
                unit_plan.wake()

    async def read(self, group: Group) -> Sequence[Scan]:
        """One full scan. Raises DeviceTimeout where nothing answers, DeviceAway when the line is lost."""
        return [await self._read(Take(group))]

    async def inspect(self, group: Group) -> Inspection:
        """See `Inspects`."""
        taken = CloseTake(group, self._link)
        scan = await self._read(taken)
        points = [(tag.address, self._encoding(tag.address)) for tag in group.tags]
        found = [evidence(point, encoding, taken.raw.get(at, b"")) for at, (point, encoding) in enumerate(points)]
        return Inspection([scan], found, taken.latencies_s)

    def facts(self) -> Mapping[str, str]:
        """See `Inspects`."""
        return facts(self._settings, sorted({unit_id for plans in self._plans.values() for unit_id in plans}))

    async def _read(self, taken: Take) -> Scan:
        if not self._is_connected:
            raise DeviceAway(f"{self._where(self._settings.unit_id)}: not connected; connect first.")
        if fault := self._endpoint.fault:
            await self.close()
            raise self._lost(self._settings.unit_id, fault)
        failures = 0  # each may have cost a time-out
        probed = False  # of the units known to be silent one is asked in a read
        for unit_id, unit_plan in self._plans[taken.group.name].items():
            silence = self._units.silence(unit_id)
            if failures == FAILURES_PER_READ:
                taken.fail(unit_plan.members, *(silence or _not_asked(unit_id)))
            elif silence is not None and (probed or not self._units.is_due(unit_id, time.monotonic())):
                taken.fail(unit_plan.members, *silence)
            else:
                probed = probed or silence is not None
                failures += not await self._read_unit(taken, unit_id, unit_plan)
        return taken.scan()

    async def write(self, tag: Tag, value: Value) -> Value:
        """See `Writes`. Bits of a register are set with function 22, so that the device leaves the others alone."""
        point: Point = tag.address
        unit_id = self._unit_id(point)
        where = f"{self._where(unit_id)}, tag {tag.name}, {place(point.table, point.address, point.size)}"
        request = self._write_request(point, value, where)
        if not self._is_connected:
            raise DeviceAway(f"{self._where(unit_id)}: not connected; connect first.")
        try:
            (answer,) = await self._ask(unit_id, [request])
        except DeviceAway as error:
            raise type(error)(f"{error} It is not known whether tag {tag.name} was written.") from error
        if isinstance(answer, int):
            raise WriteFailed(f"{where}: not written, {exception(answer)[1]}.")
        span = point.span(unit_id)
        (answer,) = await self._ask(unit_id, [read_request(*span)])
        if isinstance(answer, int):
            raise WriteFailed(f"{where}: written, but it cannot be read back: {exception(answer)[1]}.")
        group = Group(self.name, "read back", 1.0, (tag,))
        taken, branch = Take(group), Branch[_Reader](Block((0,), (span,)))
        self._decode(taken, self._prepare(group, branch), answer)
        found = taken.values[0]
        if not same(found, value, point.encoding):
            raise WriteFailed(f"{where}: {value!r} was written, but it holds {found!r}; see what else writes it.")
        return found

    def _write_request(self, point: Point, value: Value, where: str) -> Request:
        """Raises WriteFailed where nothing may be written."""
        unit_id = self._unit_id(point)
        if point.writable is None:
            raise WriteFailed(f"{where}: not writable; set `writable: true` and its limits in the configuration first.")
        if unit_id == 0 and self._link.transport in ("rtu", "rtu_over_tcp"):
            raise WriteFailed(f"{where}: unit id 0 is everybody on a serial line, and nobody answers; give a unit id.")
        encoding, functions = self._encoding(point), self._settings.functions
        try:
            return write_request(unit_id, point.table, point.address, encoding, point.writable, value, functions)
        except ValueError as error:
            raise WriteFailed(f"{where}: not written, {error}.") from error

    async def _read_unit(self, taken: Take, unit_id: int, unit_plan: UnitPlan[_Reader]) -> bool:
        """Whether the unit answers."""
        round_, answers_itself = unit_plan.round(), True
        while wave := round_.wave():
            readers = [branch.tool or self._prepare(taken.group, branch) for branch in wave]
            try:
                answers = await taken.ask(partial(self._ask, unit_id), [reader.request for reader in readers])
            except DeviceTimeout as error:
                self._units.failed(unit_id, time.monotonic(), error.quality, str(error), is_mute=True)
                if self._units.all_mute:
                    await self.close()
                    raise
                taken.fail(unit_plan.members, error.quality, str(error))
                return False
            taken.time_us = now_us()
            for branch, reader, answer in zip(wave, readers, answers, strict=True):
                if isinstance(answer, bytes):
                    branch.answered()
                    taken.keep(branch.block, answer)
                    self._decode(taken, reader, answer)
                else:
                    round_.refuse(branch, answer)
            if answers[-1] in GATEWAY_AWAY and isinstance(answers[-1], int):
                self._gateway_says(unit_id, answers[-1])
                answers_itself = False
                break
        for branch in round_.refused:
            bad = verdict(branch.block, branch.code, self._settings.unit_id)
            taken.bad.update(dict.fromkeys(branch.block.members, bad))
        unit_plan.settle(round_)
        if answers_itself:
            self._units.answered(unit_id)
        return answers_itself

    def _gateway_says(self, unit_id: int, code: int) -> None:
        """A gateway answered in place of the unit that it does not reach it."""
        quality, phrase = exception(code)
        self._units.failed(unit_id, time.monotonic(), quality, f"unit {unit_id}: {phrase}", is_mute=False)

    async def _ask(self, unit_id: int, requests: Sequence[Request]) -> list[bytes | int]:
        """What Endpoint.ask returns; its errors in the contract's words. A lost line is closed."""
        try:
            return await self._endpoint.ask(self, requests)
        except NoConnection as error:
            await self.close()
            raise DeviceAway(f"{self._where(unit_id)}: {no_connection(error.cause, self._link)}") from error
        except TimeoutError as error:
            where, waited = self._where(unit_id), f"{self._settings.timeout_s:g} s"
            raise DeviceTimeout(
                f"{where}: no answer within {waited}; check the unit id, and that the PLC is in RUN."
            ) from error
        except OSError as error:
            await self.close()
            raise self._lost(unit_id, str(error)) from error

    def _lost(self, unit_id: int, why: str) -> DeviceAway:
        return DeviceAway(f"{self._where(unit_id)}: {why}; check the unit id, and how many clients the PLC allows.")

    def _decode(self, taken: Take, reader: _Reader, answer: bytes) -> None:
        """The content of one block into the group's values."""
        decoded, missing = reader.decoder.decode(answer)
        for position, point, counter in reader.meanings:
            self._judge(taken, reader.indexes[position], decoded, position, point, counter)
        if reader.run is not None:
            taken.values[reader.run] = decoded
        else:
            for index, value in zip(reader.indexes, decoded, strict=True):
                taken.values[index] = value
        for position, number in missing.items():
            index = reader.indexes[position]
            point = taken.group.tags[index].address
            taken.bad[index] = (Quality.BAD_OUT_OF_RANGE, absent(point, self._encoding(point), number))

    def _judge(
        self,
        taken: Take,
        index: int,
        decoded: list[Value],
        position: int,
        point: Point,
        counter: Counter | None,
    ) -> None:
        """What the value means, in place of the decoded one."""
        value = decoded[position]
        if counter is not None and isinstance(value, int):
            decoded[position] = counter.total(value)
        elif point.meaning is not None and value is not None:
            decoded[position], quality, reason = point.meaning.of(value)
            if quality != Quality.GOOD:
                taken.bad[index] = quality, f"{place(point.table, point.address, point.size)}: {reason}"

    def _prepare(self, group: Group, branch: Branch[_Reader]) -> _Reader:
        block = branch.block
        request = read_request(block.unit_id, block.table, block.address, block.count)
        points = [(position, group.tags[index]) for position, index in enumerate(block.members)]
        meanings = [
            (position, tag.address, self._counter(group, tag))
            for position, tag in points
            if tag.address.meaning is not None or tag.address.counter_step_max
        ]
        branch.tool = _Reader(request, self._decoder(group, block), block.members, run_of(block.members), meanings)
        return branch.tool

    def _counter(self, group: Group, tag: Tag) -> Counter | None:
        point: Point = tag.address
        if not point.counter_step_max:
            return None
        counter = self._counters.get((group.name, tag.name))
        if counter is None:
            counter = self._counters[group.name, tag.name] = Counter(point.encoding.capacity, point.counter_step_max)
        return counter

    def _decoder(self, group: Group, block: Block) -> BitDecoder | RegisterDecoder:
        if block.table.holds_bits:
            return BitDecoder([span.address - block.address for span in block.spans])
        return RegisterDecoder(
            block.count,
            [
                (span.address - block.address, self._encoding(group.tags[index].address))
                for index, span in zip(block.members, block.spans, strict=True)
            ],
        )

    def _encoding(self, point: Point) -> Encoding:
        return point.encoding if point.has_order else replace(point.encoding, order=self._settings.order)

    async def close(self) -> None:
        """See the contract."""
        self._is_connected = False
        await self._endpoint.leave(self)


def _not_asked(unit_id: int) -> tuple[int, str]:
    return (
        Quality.BAD_WAITING_FOR_INITIAL_DATA,
        f"unit {unit_id}: not asked yet, because other units here do not answer; it will be in one of the next reads",
    )
