"""What an asyncio service built on gmqtt does: every QoS, wildcards, retained messages, wills, sessions, properties."""

import asyncio
import sys

import gmqtt
from gmqtt.mqtt.constants import MQTTv50, MQTTv311

HOST, PORT = sys.argv[1], int(sys.argv[2])
WAIT_S = 30


class Peer:
    """A client whose events come out of queues."""

    @classmethod
    async def connect(cls, name, version, clean=True, will=None):
        peer = cls()
        properties = {"session_expiry_interval": 3600} if version == MQTTv50 and not clean else {}
        message = gmqtt.Message(*will) if will else None
        peer.client = gmqtt.Client(name, clean_session=clean, will_message=message, **properties)
        peer.messages, peer.subscribed = asyncio.Queue(), asyncio.Queue()
        peer.client.on_connect = lambda client, flags, reason, properties: setattr(peer, "session_present", bool(flags))
        peer.client.on_message = lambda client, *message: peer.messages.put_nowait(message)
        peer.client.on_subscribe = lambda client, mid, granted, properties: peer.subscribed.put_nowait(granted)
        peer.client.stop_reconnect()
        await asyncio.wait_for(peer.client.connect(HOST, PORT, version=version, keepalive=30), WAIT_S)
        return peer

    async def subscribe(self, topic, qos):
        self.client.subscribe(topic, qos=qos)
        assert list(await asyncio.wait_for(self.subscribed.get(), WAIT_S)) == [qos]

    async def expect(self, topic, payload):
        found = await asyncio.wait_for(self.messages.get(), WAIT_S)
        assert found[:2] == (topic, payload), found
        return found[2], found[3]

    async def leave(self):
        await self.client.disconnect()

    def vanish(self):
        """Cuts the connection without DISCONNECT."""
        self.client._is_active = False
        self.client._connection._transport.abort()


async def every_qos(version):
    receiver, sender = await Peer.connect("receiver", version), await Peer.connect("sender", version)
    for qos in (0, 1, 2):
        await receiver.subscribe(f"gmqtt/{qos}/+", qos)
        for number in range(100):
            sender.client.publish(f"gmqtt/{qos}/x", str(number), qos=qos)
        for number in range(100):
            assert (await receiver.expect(f"gmqtt/{qos}/x", str(number).encode()))[0] == qos
    await receiver.leave()
    await sender.leave()


async def retained(version):
    sender = await Peer.connect("sender", version)
    first = await Peer.connect("first", version)
    await first.subscribe("gmqtt/kept/#", 1)
    sender.client.publish("gmqtt/kept/a", "last", qos=1, retain=True)
    assert (await first.expect("gmqtt/kept/a", b"last"))[1]["retain"] == 0
    late = await Peer.connect("late", version)
    await late.subscribe("gmqtt/+/a", 1)
    assert (await late.expect("gmqtt/kept/a", b"last"))[1]["retain"] == 1
    sender.client.publish("gmqtt/kept/a", "", qos=1, retain=True)
    await late.expect("gmqtt/kept/a", b"")
    for peer in (sender, first, late):
        await peer.leave()


async def wills(version):
    watcher = await Peer.connect("watcher", version)
    await watcher.subscribe("gmqtt/wills/+", 1)
    (await Peer.connect("mortal", version, will=("gmqtt/wills/mortal", "gone", 1))).vanish()
    await watcher.expect("gmqtt/wills/mortal", b"gone")
    await (await Peer.connect("polite", version, will=("gmqtt/wills/polite", "gone", 1))).leave()
    (await Peer.connect("mortal", version, will=("gmqtt/wills/mortal", "again", 1))).vanish()
    await watcher.expect("gmqtt/wills/mortal", b"again")
    await watcher.leave()


async def sessions(version):
    sleeper = await Peer.connect("sleeper", version, clean=False)
    assert not sleeper.session_present
    await sleeper.subscribe("gmqtt/night/#", 2)
    await sleeper.leave()
    watcher, sender = await Peer.connect("watcher", version), await Peer.connect("sender", version)
    await watcher.subscribe("gmqtt/night/#", 1)
    for number in range(50):
        sender.client.publish(f"gmqtt/night/{number % 3}", str(number), qos=1)
    for number in range(50):
        await watcher.expect(f"gmqtt/night/{number % 3}", str(number).encode())
    sleeper = await Peer.connect("sleeper", version, clean=False)
    assert sleeper.session_present
    for number in range(50):
        await sleeper.expect(f"gmqtt/night/{number % 3}", str(number).encode())
    for peer in (sleeper, watcher, sender):
        await peer.leave()
    await (await Peer.connect("sleeper", version)).leave()


async def properties_pass_through():
    receiver, sender = await Peer.connect("receiver", MQTTv50), await Peer.connect("sender", MQTTv50)
    await receiver.subscribe("gmqtt/properties", 1)
    user = [("site", "north"), ("line", "4"), ("site", "again")]
    sender.client.publish(
        "gmqtt/properties",
        {"mm_s": 4},
        qos=1,
        user_property=user,
        content_type="application/json",
        response_topic="gmqtt/answers",
        correlation_data=b"\x00\x01",
        message_expiry_interval=60,
    )
    _, seen = await receiver.expect("gmqtt/properties", b'{"mm_s": 4}')
    assert [tuple(pair) for pair in seen["user_property"]] == user, seen
    assert seen["content_type"] == ["application/json"] and seen["response_topic"] == ["gmqtt/answers"], seen
    assert seen["correlation_data"] == [b"\x00\x01"], seen
    assert 50 <= seen["message_expiry_interval"][0] <= 60, seen
    await receiver.leave()
    await sender.leave()


async def main():
    for version in (MQTTv311, MQTTv50):
        for scenario in (every_qos, retained, wills, sessions):
            await scenario(version)
            print("ok", scenario.__name__, version)
    await properties_pass_through()
    print("ok properties_pass_through")


asyncio.run(main())
