"""What a service built on aiomqtt does: every QoS, wildcards, retained messages, wills, sessions, properties."""

import asyncio
import sys

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

HOST, PORT = sys.argv[1], int(sys.argv[2])
WAIT_S = 30
V311, V5 = aiomqtt.ProtocolVersion.V311, aiomqtt.ProtocolVersion.V5


def peer(name, version, clean=True, will=None):
    """A client to be entered with `async with`."""
    arguments = {}
    if version == V311:
        arguments["clean_session"] = clean
    else:
        arguments["clean_start"] = clean
        if not clean:
            arguments["properties"] = Properties(PacketTypes.CONNECT)
            arguments["properties"].SessionExpiryInterval = 3600
    return aiomqtt.Client(HOST, PORT, identifier=name, protocol=version, will=will, timeout=WAIT_S, **arguments)


async def expect(client, topic, payload):
    message = await asyncio.wait_for(anext(client.messages), WAIT_S)
    assert (message.topic.value, message.payload) == (topic, payload), (message.topic.value, message.payload)
    return message


async def subscribe(client, topic, qos):
    granted = await client.subscribe(topic, qos)
    assert [getattr(reason, "value", reason) for reason in granted] == [qos], granted


async def every_qos(version):
    async with peer("receiver", version) as receiver, peer("sender", version) as sender:
        for qos in (0, 1, 2):
            await subscribe(receiver, f"aiomqtt/{qos}/+", qos)
            for number in range(100):
                await sender.publish(f"aiomqtt/{qos}/x", str(number), qos)
            for number in range(100):
                assert (await expect(receiver, f"aiomqtt/{qos}/x", str(number).encode())).qos == qos


async def retained(version):
    async with peer("sender", version) as sender, peer("late", version) as late:
        await sender.publish("aiomqtt/kept/a", "last", 1, retain=True)
        await subscribe(late, "aiomqtt/kept/#", 1)
        assert (await expect(late, "aiomqtt/kept/a", b"last")).retain
        await sender.publish("aiomqtt/kept/a", "", 1, retain=True)
        assert not (await expect(late, "aiomqtt/kept/a", b"")).retain


async def vanish(name, version, payload):
    """Cuts a connection that has a will without DISCONNECT."""
    async with peer(name, version, will=aiomqtt.Will(f"aiomqtt/wills/{name}", payload, 1)) as client:
        client._client.socket().shutdown(2)
        await asyncio.wait([client._disconnected], timeout=WAIT_S)


async def wills(version):
    async with peer("watcher", version) as watcher:
        await subscribe(watcher, "aiomqtt/wills/+", 1)
        await vanish("mortal", version, b"gone")
        await expect(watcher, "aiomqtt/wills/mortal", b"gone")
        async with peer("polite", version, will=aiomqtt.Will("aiomqtt/wills/polite", "gone", 1)):
            pass
        await vanish("mortal", version, b"again")
        await expect(watcher, "aiomqtt/wills/mortal", b"again")


async def sessions(version):
    async with peer("sleeper", version, clean=False) as sleeper:
        await subscribe(sleeper, "aiomqtt/night/#", 2)
    async with peer("sender", version) as sender:
        for number in range(50):
            await sender.publish(f"aiomqtt/night/{number % 3}", str(number), 1)
    # Nothing is subscribed to here: what comes is what the session kept.
    async with peer("sleeper", version, clean=False) as sleeper:
        for number in range(50):
            await expect(sleeper, f"aiomqtt/night/{number % 3}", str(number).encode())
    async with peer("sleeper", version):
        pass


async def properties_pass_through():
    async with peer("receiver", V5) as receiver, peer("sender", V5) as sender:
        await subscribe(receiver, "aiomqtt/properties", 1)
        properties = Properties(PacketTypes.PUBLISH)
        properties.UserProperty = [("site", "north"), ("line", "4"), ("site", "again")]
        properties.ResponseTopic = "aiomqtt/answers"
        properties.CorrelationData = b"\x00\x01"
        await sender.publish("aiomqtt/properties", b"{}", 1, properties=properties)
        seen = (await expect(receiver, "aiomqtt/properties", b"{}")).properties
        assert seen.UserProperty == properties.UserProperty, seen
        assert (seen.ResponseTopic, seen.CorrelationData) == ("aiomqtt/answers", b"\x00\x01"), seen


async def main():
    for version in (V311, V5):
        for scenario in (every_qos, retained, wills, sessions):
            await scenario(version)
            print("ok", scenario.__name__, version)
    await properties_pass_through()
    print("ok properties_pass_through")


asyncio.run(main())
