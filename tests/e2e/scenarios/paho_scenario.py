"""What a fleet built on paho-mqtt does: every QoS, retained messages, wills, sessions that outlive a connection."""

import queue
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

HOST, PORT = sys.argv[1], int(sys.argv[2])
WAIT_S = 30


class Peer:
    """A client whose events come out of queues."""

    def __init__(self, name, version, clean=True, will=None):
        v5 = version == mqtt.MQTTv5
        arguments = {} if v5 else {"clean_session": clean}
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=name, protocol=version, **arguments)
        self.connected, self.subscribed, self.messages = queue.Queue(), queue.Queue(), queue.Queue()
        self.client.on_connect = lambda c, u, flags, reason, p: self.connected.put((flags, reason))
        self.client.on_subscribe = lambda c, u, mid, reasons, p: self.subscribed.put(reasons)
        self.client.on_message = lambda c, u, message: self.messages.put(message)
        if will:
            self.client.will_set(*will)
        properties = None
        if v5 and not clean:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 3600
        arguments = {"clean_start": clean, "properties": properties} if v5 else {}
        self.client.connect(HOST, PORT, keepalive=30, **arguments)
        self.client.loop_start()
        self.flags, reason = self.connected.get(timeout=WAIT_S)
        assert not reason.is_failure, reason

    def subscribe(self, topic, qos):
        self.client.subscribe(topic, qos)
        reasons = self.subscribed.get(timeout=WAIT_S)
        assert [reason.value for reason in reasons] == [qos], reasons

    def publish(self, topic, payload, qos, retain=False, properties=None):
        self.client.publish(topic, payload, qos, retain, properties).wait_for_publish(WAIT_S)

    def expect(self, topic, payload):
        message = self.messages.get(timeout=WAIT_S)
        assert (message.topic, message.payload) == (topic, payload), (message.topic, message.payload)
        return message

    def leave(self):
        self.client.disconnect()
        self.client.loop_stop()

    def vanish(self):
        """Closes the socket without DISCONNECT."""
        self.client.on_disconnect = None
        self.client.reconnect_delay_set(3600, 3600)
        self.client.socket().shutdown(2)
        self.client.loop_stop()


def every_qos(version):
    receiver, sender = Peer("receiver", version), Peer("sender", version)
    for qos in (0, 1, 2):
        receiver.subscribe(f"paho/{qos}/+", qos)
        for number in range(200):
            sender.publish(f"paho/{qos}/x", str(number).encode(), qos)
        for number in range(200):
            assert receiver.expect(f"paho/{qos}/x", str(number).encode()).qos == qos
    receiver.leave()
    sender.leave()


def retained(version):
    sender = Peer("sender", version)
    sender.publish("paho/kept", b"last", 1, retain=True)
    late = Peer("late", version)
    late.subscribe("paho/kept", 1)
    assert late.expect("paho/kept", b"last").retain
    sender.publish("paho/kept", b"", 1, retain=True)
    late.expect("paho/kept", b"")
    sender.leave()
    late.leave()


def wills(version):
    watcher = Peer("watcher", version)
    watcher.subscribe("paho/wills/+", 1)
    Peer("mortal", version, will=("paho/wills/mortal", b"gone", 1, False)).vanish()
    watcher.expect("paho/wills/mortal", b"gone")
    Peer("polite", version, will=("paho/wills/polite", b"gone", 1, False)).leave()
    Peer("mortal", version, will=("paho/wills/mortal", b"again", 1, False)).vanish()
    watcher.expect("paho/wills/mortal", b"again")
    watcher.leave()


def sessions(version):
    sleeper = Peer("sleeper", version, clean=False)
    assert not sleeper.flags.session_present
    sleeper.subscribe("paho/night/#", 2)
    sleeper.leave()
    sender = Peer("sender", version)
    for number in range(100):
        sender.publish(f"paho/night/{number % 3}", str(number).encode(), 1 + number % 2)
    sleeper = Peer("sleeper", version, clean=False)
    assert sleeper.flags.session_present
    # Order is promised for messages of one QoS; those of QoS 2 come when their exchange is complete.
    seen = [int(sleeper.messages.get(timeout=WAIT_S).payload) for _ in range(100)]
    for parity in (0, 1):
        assert [number for number in seen if number % 2 == parity] == list(range(parity, 100, 2)), seen
    sleeper.leave()
    sender.leave()
    Peer("sleeper", version, clean=True).leave()


def properties_pass_through():
    receiver, sender = Peer("receiver", mqtt.MQTTv5), Peer("sender", mqtt.MQTTv5)
    receiver.subscribe("paho/properties", 1)
    properties = Properties(PacketTypes.PUBLISH)
    properties.UserProperty = [("site", "north"), ("line", "4"), ("site", "again")]
    properties.ContentType = "application/json"
    properties.ResponseTopic = "paho/answers"
    properties.CorrelationData = b"\x00\x01"
    properties.PayloadFormatIndicator = 1
    properties.MessageExpiryInterval = 60
    sender.publish("paho/properties", b"{}", 1, properties=properties)
    seen = receiver.expect("paho/properties", b"{}").properties
    assert seen.UserProperty == properties.UserProperty, seen
    assert (seen.ContentType, seen.ResponseTopic) == ("application/json", "paho/answers"), seen
    assert (seen.CorrelationData, seen.PayloadFormatIndicator) == (b"\x00\x01", 1), seen
    assert 50 <= seen.MessageExpiryInterval <= 60, seen
    receiver.leave()
    sender.leave()


for version in (mqtt.MQTTv311, mqtt.MQTTv5):
    for scenario in (every_qos, retained, wills, sessions):
        scenario(version)
        print("ok", scenario.__name__, version)
properties_pass_through()
print("ok properties_pass_through")
