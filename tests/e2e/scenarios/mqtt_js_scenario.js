// What a dashboard built on MQTT.js does: every QoS, retained messages, and a session that outlives its connection.

const assert = require('node:assert');
const mqtt = require('mqtt');

const [host, port] = process.argv.slice(2);
const url = `mqtt://${host}:${port}`;

async function peer(clientId, protocolVersion, clean = true) {
  const properties = protocolVersion === 5 && !clean ? { sessionExpiryInterval: 3600 } : undefined;
  const waiting = [];
  const messages = [];
  const client = mqtt.connect(url, { clientId, protocolVersion, clean, properties, reconnectPeriod: 0, manualConnect: true });
  client.on('message', (topic, payload, packet) => {
    messages.push({ topic, payload: payload.toString(), packet });
    if (waiting.length > 0) waiting.shift()(messages.shift());
  });
  const connected = new Promise((resolve, reject) => {
    client.once('connect', resolve);
    client.once('error', reject);
  });
  client.connect();
  const connack = await connected;
  const next = () => (messages.length > 0 ? Promise.resolve(messages.shift()) : new Promise((resolve) => waiting.push(resolve)));
  return { client, next, sessionPresent: connack.sessionPresent };
}

async function everyQos(version) {
  const receiver = await peer('receiver', version);
  const sender = await peer('sender', version);
  for (const qos of [0, 1, 2]) {
    await receiver.client.subscribeAsync(`js/${qos}/+`, { qos });
    for (let number = 0; number < 100; number += 1) await sender.client.publishAsync(`js/${qos}/x`, String(number), { qos });
    for (let number = 0; number < 100; number += 1) {
      const message = await receiver.next();
      assert.deepStrictEqual([message.topic, message.payload, message.packet.qos], [`js/${qos}/x`, String(number), qos]);
    }
  }
  await receiver.client.endAsync();
  await sender.client.endAsync();
}

async function retainedAndSession(version) {
  const sender = await peer('sender', version);
  await sender.client.publishAsync('js/kept', 'last', { qos: 1, retain: true });
  const sleeper = await peer('sleeper', version, false);
  assert.strictEqual(sleeper.sessionPresent, false);
  await sleeper.client.subscribeAsync('js/#', { qos: 1 });
  assert.strictEqual((await sleeper.next()).payload, 'last');
  await sleeper.client.endAsync();
  await sender.client.publishAsync('js/kept', '', { qos: 1, retain: true });
  const again = await peer('sleeper', version, false);
  assert.strictEqual(again.sessionPresent, true);
  assert.strictEqual((await again.next()).payload, '');
  await again.client.endAsync();
  await (await peer('sleeper', version, true)).client.endAsync();
  await sender.client.endAsync();
}

async function main() {
  for (const version of [4, 5]) {
    await everyQos(version);
    await retainedAndSession(version);
    console.log('ok', version);
  }
}

main().then(() => process.exit(0), (error) => { console.error(error); process.exit(1); });
