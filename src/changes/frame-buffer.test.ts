import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { copyData, keepalive, xlogData } from '../../test/support/pgoutput-encoder.ts';
import { FrameBuffer } from './frame-buffer.ts';
import { appendRun, frameEnd, type FrameRun } from './frames.ts';

const frame = fc.oneof(
  { weight: 5, arbitrary: fc.uint8Array({ minLength: 1, maxLength: 200 }).map((b) => xlogData(Buffer.from(b))) },
  { weight: 1, arbitrary: fc.bigInt({ min: 0n, max: 2n ** 63n }).map((n) => keepalive(n)) },
  { weight: 1, arbitrary: fc.constantFrom(70_000, 1_048_576, 2_500_000).map((n) => copyData(Buffer.alloc(n, n))) },
);

/** Feeds bytes in pieces of the given sizes, some copied in and some written in place, and returns the frames. */
function feed(bytes: Buffer, sizes: readonly number[]): Buffer[] {
  const buffer = new FrameBuffer();
  const views: Buffer[] = [];
  for (let at = 0, i = 0; at < bytes.length; i += 1) {
    const size = Math.min(sizes[i % sizes.length]!, bytes.length - at);
    if (i % 2 === 0) {
      buffer.append(bytes.subarray(at, at + size));
      at += size;
    } else {
      const room = buffer.room();
      const take = Math.min(size, room.length - buffer.filled);
      bytes.copy(room, buffer.filled, at, at + take);
      buffer.wrote(take);
      at += take;
    }
    buffer.takeFrames((slab, start, end) => views.push(slab.subarray(start, end)));
  }
  return views;
}

describe('frame buffer', () => {
  it('finds every frame however the bytes are cut, and never overwrites what it gave out', () => {
    fc.assert(fc.property(fc.array(frame, { minLength: 1, maxLength: 30 }), fc.array(fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1000, max: 300_000 })), { minLength: 1, maxLength: 8 }), (frames, sizes) => {
      const total = frames.reduce((sum, f) => sum + f.length, 0);
      // Tiny pieces of megabytes take long and show nothing more.
      const views = feed(Buffer.concat(frames), total > 100_000 ? [...sizes, 150_000] : sizes);
      expect(views.length).toBe(frames.length);
      expect(views.every((v, i) => v.equals(frames[i]!))).toBe(true);
    }), { numRuns: 60 });
  });

  it('refuses a length that cannot be', () => {
    const buffer = new FrameBuffer();
    buffer.append(Buffer.from([0x64, 0, 0, 0, 3, 1]));
    expect(() => buffer.takeFrames(() => undefined)).toThrow(expect.objectContaining({ code: 'protocol-violation' }));
  });
});

it('runs that lie side by side are joined', () => {
  const bytes = Buffer.concat([keepalive(1n), keepalive(2n)]);
  const runs: FrameRun[] = [];
  appendRun(runs, { bytes, start: 0, end: 23 });
  appendRun(runs, { bytes, start: 23, end: 46 });
  appendRun(runs, { bytes: Buffer.from(bytes), start: 0, end: 23 });
  expect(runs.map((r) => [r.start, r.end])).toEqual([[0, 46], [0, 23]]);
  expect(frameEnd(bytes, 23)).toBe(46);
});
