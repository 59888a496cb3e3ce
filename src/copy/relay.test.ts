import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FrameHopper } from './relay.ts';

const frame = (type: string, body: Buffer) => {
  const head = Buffer.alloc(5);
  head.write(type, 0, 'latin1');
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
};

describe('FrameHopper', () => {
  it('finds the first frame that is no CopyData, wherever chunks are cut', () => {
    const body = fc.uint8Array({ maxLength: 60 }).map((bytes) => Buffer.from(bytes));
    fc.assert(fc.property(fc.array(body, { maxLength: 20 }), fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 30 }), (bodies, sizes) => {
      const data = Buffer.concat(bodies.map((b) => frame('d', b)));
      const all = Buffer.concat([data, frame('c', Buffer.alloc(0)), frame('C', Buffer.from('COPY 1\0'))]);
      const hopper = new FrameHopper();
      let passed = 0;
      for (let at = 0, i = 0; at < all.length; i += 1) {
        const chunk = all.subarray(at, at + sizes[i % sizes.length]!);
        const end = hopper.hop(chunk);
        passed += end;
        if (end < chunk.length) break;
        at += chunk.length;
      }
      expect(passed).toBe(data.length);
      expect(hopper.frames).toBe(bodies.length);
    }));
  });
});
