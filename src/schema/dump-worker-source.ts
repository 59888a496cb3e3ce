/**
 * The worker thread of bundled-dump.ts as text: Node 20 cannot start a worker from a TypeScript file, and this must run from sources and compiled alike.
 *
 * The package cuts every line that begins with `\restrict` or `\unrestrict` out of the dump with one `replace`, also inside of strings; so the text is kept as
 * it was before that call. Standing still in `Atomics.wait` is what makes libpq's blocking reads possible.
 */
export const dumpWorkerSource = String.raw`
const { parentPort, workerData, receiveMessageOnPort } = require('node:worker_threads');
const { port, wake, module: path, args } = workerData;
let whole;
const replace = String.prototype.replace;
String.prototype.replace = function (pattern, value) {
  if (pattern instanceof RegExp && pattern.source.includes('(?:un)?restrict')) whole = String(this);
  return Reflect.apply(replace, this, [pattern, value]);
};
let seen = 0;
const pg = {
  query: async () => ({ rows: [{ search_path: 'public' }] }),
  exec: async () => [],
  execProtocolRawStream(bytes, { onRawData }) {
    port.postMessage(new Uint8Array(bytes));
    for (;;) {
      const received = receiveMessageOnPort(port);
      if (received === undefined) {
        Atomics.wait(wake, 0, seen);
        seen = Atomics.load(wake, 0);
      } else if (received.message === null) return;
      else onRawData(received.message);
    }
  },
};
(async () => {
  try {
    const { pgDump } = require(path);
    const file = await pgDump({ pg, args });
    const pruned = await file.text();
    parentPort.postMessage({ sql: whole === undefined ? pruned : whole });
  } catch (error) {
    parentPort.postMessage({ error: String((error && error.message) || error) });
  }
})();
`;
