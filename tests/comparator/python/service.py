"""The vibration service as many write it: Python, paho-mqtt, SQLite.

Events are acknowledged by hand, after the commit that holds what they changed. SQLite runs with a write-ahead log and
`synchronous = FULL`, so a commit is on disk when it returns. Alerts are published before their events are acknowledged: a
crash in between repeats both and loses neither. The rules are those of `src/vibration.rs`.

`--commit each` commits after each event, which is what most services do. `--commit batch` commits once for what has come
meanwhile. Prints `ready` when the subscriptions stand.
"""

import argparse
import json
import pathlib
import queue
import sqlite3

import paho.mqtt.client as mqtt

ALARMING_MM_S = 10.0
SMOOTHING = 0.125
FILTERS = [("assets/+/vibration", 1), ("assets/+/inspect", 1)]

# Events under one commit, at most.
BATCH = 1024

COLUMNS = "readings, alerts, last_ts, mean, squares, lowest, highest, smoothed"


class Store:
    """The records of all assets."""

    def __init__(self, directory: pathlib.Path):
        directory.mkdir(parents=True, exist_ok=True)
        # One thread uses it: the one that handles events. Transactions begin and end where this file says so.
        self.database = sqlite3.connect(directory / "records.sqlite", isolation_level=None)
        self.database.execute("PRAGMA journal_mode = WAL")
        self.database.execute("PRAGMA synchronous = FULL")
        self.database.execute(
            "CREATE TABLE IF NOT EXISTS records (asset TEXT PRIMARY KEY, readings INTEGER, alerts INTEGER, "
            "last_ts INTEGER, mean REAL, squares REAL, lowest REAL, highest REAL, smoothed REAL) WITHOUT ROWID"
        )

    def record(self, asset: str):
        """The record of an asset, or None."""
        return self.database.execute(f"SELECT {COLUMNS} FROM records WHERE asset = ?", (asset,)).fetchone()

    def keep(self, asset: str, record: tuple):
        """Writes a record; durable with the commit."""
        self.database.execute(
            f"INSERT OR REPLACE INTO records (asset, {COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (asset, *record)
        )

    def begin(self):
        self.database.execute("BEGIN IMMEDIATE")

    def commit(self):
        self.database.execute("COMMIT")


def observe(store: Store, asset: str, reading: dict):
    """Takes a reading; gives the alert that it causes, or None."""
    mm_s = reading["mm_s"]
    record = store.record(asset) or (0, 0, 0, 0.0, 0.0, mm_s, mm_s, mm_s)
    readings, alerts, _, mean, squares, lowest, highest, smoothed = record
    readings += 1
    difference = mm_s - mean
    mean += difference / readings
    squares += difference * (mm_s - mean)
    smoothed += SMOOTHING * (mm_s - smoothed)
    is_alarming = mm_s > ALARMING_MM_S
    alerts += is_alarming
    store.keep(
        asset, (readings, alerts, reading["ts"], mean, squares, min(lowest, mm_s), max(highest, mm_s), smoothed)
    )
    if not is_alarming:
        return None
    return {
        "asset": asset,
        "seq": reading["seq"],
        "ts": reading["ts"],
        "mm_s": mm_s,
        "mean_mm_s": mean,
        "readings": readings,
    }


def answer(store: Store, asset: str) -> dict:
    """What is kept of an asset."""
    record = store.record(asset) or (0, 0, 0, 0.0, 0.0, 0.0, 0.0, 0.0)
    readings, alerts, _, mean, _, _, highest, _ = record
    return {"asset": asset, "readings": readings, "alerts": alerts, "mean_mm_s": mean, "highest_mm_s": highest}


def handle(store: Store, event: mqtt.MQTTMessage):
    """Handles one event; gives the message to be published after the commit, or None."""
    _, asset, kind = event.topic.split("/")
    if kind == "inspect":
        return f"assets/{asset}/record", answer(store, asset)
    try:
        reading = json.loads(event.payload)
    except ValueError as error:
        print(f"a reading on {event.topic} is passed over: {error}")
        return None
    alert = observe(store, asset, reading)
    return (f"assets/{asset}/alerts", alert) if alert else None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broker", required=True, metavar="ADDR:PORT")
    parser.add_argument("--data", required=True, metavar="DIR", type=pathlib.Path)
    parser.add_argument("--commit", required=True, choices=["each", "batch"])
    args = parser.parse_args()
    host, _, port = args.broker.rpartition(":")

    client = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2, client_id="vibration-service", clean_session=False, manual_ack=True
    )
    # Alerts that the broker has not acknowledged; paho's default of 20 would be the bottleneck.
    client.max_inflight_messages_set(2000)
    events: queue.SimpleQueue = queue.SimpleQueue()
    client.on_connect = lambda client, *_: client.subscribe(FILTERS)
    client.on_subscribe = lambda *_: print("ready", flush=True)
    # paho's thread only receives and sends; a commit does not keep it from either. What the broker sends without
    # acknowledgement bounds the queue.
    client.on_message = lambda _client, _user, event: events.put(event)
    client.connect(host, int(port))
    client.loop_start()

    store = Store(args.data)
    most = 1 if args.commit == "each" else BATCH
    while True:
        batch = [events.get()]
        while len(batch) < most and not events.empty():
            batch.append(events.get())
        store.begin()
        messages = [handle(store, event) for event in batch]
        store.commit()
        for message in filter(None, messages):
            topic, payload = message
            client.publish(topic, json.dumps(payload, separators=(",", ":")), qos=1)
        for event in batch:
            client.ack(event.mid, event.qos)


if __name__ == "__main__":
    main()
