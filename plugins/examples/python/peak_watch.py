"""Counts each asset's readings, keeps the highest, and publishes an alert when a new highest lies above the limit."""

import json
from typing import Optional

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.handler import Event, Outcome, Outcome_Done, Outcome_Reject, Outcome_Retry, Retry
from wit_world.imports import broker, logging, state, store, transaction
from wit_world.imports.types import Message, Property, Qos

limit = 10.0


class Lifecycle(exports.Lifecycle):
    def init(self) -> None:
        """Called once on each new instance. An `Err` refuses the deploy."""
        global limit
        setting = store.get("limit_mm_s")
        try:
            limit = float("10" if setting is None else setting)
        except ValueError:
            raise Err("the setting limit_mm_s is not a number")

    def health(self) -> None:
        pass


class Handler(exports.Handler):
    def handle(self, events: list[Event]) -> list[Outcome]:
        """One outcome for each event, in order."""
        return [outcome(event) for event in events]


def outcome(event: Event) -> Outcome:
    """Each event is a transaction of its own, which begins with `begin`."""
    transaction.begin(event.id)
    try:
        return reading(event.captures[0], event.payload)
    except Exception as error:
        transaction.rollback()
        return Outcome_Retry(Retry(reason=repr(error), after_ms=None))


def reading(asset: str, payload: bytes) -> Outcome:
    mm_s = measured(payload)
    if mm_s is None:
        return Outcome_Reject('the payload is not {"mm_s": NUMBER}')
    stored = state.get(asset)
    peak = json.loads(stored) if stored else {"readings": 0, "highest": 0}
    peak["readings"] += 1
    if mm_s > peak["highest"]:
        peak["highest"] = mm_s
        if mm_s > limit:
            logging.log(logging.Level.INFO, "peak-watch", f"{asset}: {mm_s} mm/s")
            alert = {"asset": asset, "mm_s": mm_s, "readings": peak["readings"]}
            broker.publish(
                Message(
                    topic=f"assets/{asset}/alerts",
                    payload=json.dumps(alert, separators=(",", ":")).encode(),
                    qos=Qos.AT_LEAST_ONCE,
                    retain=False,
                    properties=[Property("content-type", "application/json")],
                )
            )
    state.set(asset, json.dumps(peak, separators=(",", ":")).encode())
    return Outcome_Done()


def measured(payload: bytes) -> Optional[float]:
    try:
        mm_s = json.loads(payload)["mm_s"]
    except (ValueError, TypeError, KeyError):
        return None
    return mm_s if isinstance(mm_s, (int, float)) and not isinstance(mm_s, bool) else None
