"""Two hundred answers of which something may be wrong: each is labelled rightly, none is lost, none is an exception."""

from __future__ import annotations

import json

import pytest

from tokentape.data.exchange import FAULTS
from tokentape.data.request import TraceHead
from tokentape.data.schema import CHANNELS
from tokentape.mock.scenarios import FAULT_CODES, scenarios
from tokentape.sources.endpoint.address import address_of
from tokentape.sources.endpoint.call import Call, Limits
from tokentape.sources.endpoint.capability import flown
from tokentape.sources.endpoint.flight import Flight
from tokentape.sources.endpoint.wire import Host

SCENARIOS = scenarios(200)
S = 1_000_000_000


def answer_to(scenario, url):
    """The flight of the scenario's request, and its ticks."""
    address, _ = address_of(url)
    target = address.target("/" + scenario.route) if not scenario.route.startswith("/v1") else scenario.route
    if scenario.route == "/completion":
        target = address.target("/" + scenario.route)
    wait = None if scenario.patience_s is None else int(scenario.patience_s * S)
    limits = Limits(10 * S, wait or 20 * S, wait or 20 * S, wait)
    n = scenario.body.get("n", 1)
    call = Call(
        target,
        json.dumps(scenario.body).encode(),
        tuple(TraceHead(row, None, None, None) for row in range(n)),
        limits=limits,
    )
    flight = Flight(call, Host(address))
    ticks = flown(flight)
    if flight.connection is not None:
        flight.connection.close()
    return flight, ticks


def texts_of(ticks, n, tool):
    """By choice, what came of each channel, put together; of a call of a tool the arguments."""
    found = [{} for _ in range(n)]
    for tick in ticks:
        for said in tick.said:
            channel = CHANNELS[said.channel or 0]
            found[said.row][channel] = found[said.row].get(channel, b"") + said.data
    texts = [{channel: data.decode() for channel, data in row.items() if data} for row in found]
    for row in texts:
        if "tool" in row:
            row["tool_call"] = row.pop("tool").removeprefix(tool)
    return tuple(texts)


def ids_of(ticks, n):
    found = [[] for _ in range(n)]
    for tick in ticks:
        for said in tick.said:
            if said.id is not None:  # a text that lacks its id has a row all the same
                found[said.row].append(said.id)
    return tuple(map(tuple, found))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[one.name for one in SCENARIOS])
def test_a_scenario_is_told_as_it_was(scenario):
    with scenario.server() as server:
        flight, ticks = answer_to(scenario, server.url)
    exchange = flight.exchange(flight.begun_ns)
    seen = [(one, problems(one, scenario, flight, exchange, ticks)) for one in scenario.expected]
    assert any(not found for _, found in seen), seen


def problems(expected, scenario, flight, exchange, ticks):
    """Where the recorder concludes something else."""
    n = flight.call.n
    finish = tuple(row.finish for row in flight.chunks.rows)
    pairs = {
        "fault": (exchange.fault, expected.fault),
        "label": (exchange.label, expected.label),
        "status": (exchange.status, expected.status),
    }
    if expected.finish:
        pairs["finish"] = (finish, expected.finish)
    if expected.texts:
        pairs["texts"] = (texts_of(ticks, n, scenario.script.tool), tuple(map(dict, expected.texts)))
    if expected.ids is not None:
        pairs["ids"] = (ids_of(ticks, n), expected.ids)
    if expected.texts and expected.fault is None:
        pairs["n_completion"] = (exchange.n_completion, expected.n_completion)
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def test_the_scenarios_speak_of_the_faults_that_a_tape_knows():
    assert set(FAULT_CODES) <= set(FAULTS)
    assert len({one.name for one in SCENARIOS}) == 200
