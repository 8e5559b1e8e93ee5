// Counts each asset's readings, keeps the highest, and publishes an alert when a new highest lies above the limit.

import { publish } from 'vespiary:plugin/broker@0.1.0';
import { get, set } from 'vespiary:plugin/state@0.1.0';
import { begin, rollback } from 'vespiary:plugin/transaction@0.1.0';
import { get as setting } from 'wasi:config/store@0.2.0-rc.1';
import { log } from 'wasi:logging/logging@0.1.0-draft';

const text = new TextDecoder('utf-8', { fatal: true });
const bytes = new TextEncoder();

let limit = 10;

export const lifecycle = {
  // Called once on each new instance. What is thrown refuses the deploy.
  init() {
    limit = Number(setting('limit_mm_s') ?? '10');
    if (!Number.isFinite(limit)) throw 'the setting limit_mm_s is not a number';
  },
  health() {},
};

export const handler = {
  // One outcome for each event, in order. Each event is a transaction of its own, which begins with `begin`.
  handle(events) {
    return events.map((event) => {
      begin(event.id);
      try {
        return reading(event);
      } catch (error) {
        rollback();
        return { tag: 'retry', val: { reason: String(error.payload?.val ?? error), afterMs: undefined } };
      }
    });
  },
};

function reading({ captures: [asset], payload }) {
  const mm_s = measured(payload);
  if (mm_s === undefined) return { tag: 'reject', val: 'the payload is not {"mm_s": NUMBER}' };
  const stored = get(asset);
  const peak = stored ? JSON.parse(text.decode(stored)) : { readings: 0, highest: 0 };
  peak.readings += 1;
  if (mm_s > peak.highest) {
    peak.highest = mm_s;
    if (mm_s > limit) {
      log('info', 'peak-watch', `${asset}: ${mm_s} mm/s`);
      publish({
        topic: `assets/${asset}/alerts`,
        payload: bytes.encode(JSON.stringify({ asset, mm_s, readings: peak.readings })),
        qos: 'at-least-once',
        retain: false,
        properties: [{ name: 'content-type', value: 'application/json' }],
      });
    }
  }
  set(asset, bytes.encode(JSON.stringify(peak)));
  return { tag: 'done' };
}

function measured(payload) {
  try {
    const { mm_s } = JSON.parse(text.decode(payload));
    return typeof mm_s === 'number' ? mm_s : undefined;
  } catch {
    return undefined;
  }
}
