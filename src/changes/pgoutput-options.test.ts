import { expect, it } from 'vitest';
import { pgoutputOptions } from './pgoutput-options.ts';

const all = { publications: ['a', 'b"c'], binary: true, streaming: 'parallel', twoPhase: true, origin: 'none' } as const;

it.each([
  [140_000, { proto_version: '1', messages: 'true', binary: 'true' }],
  [150_000, { proto_version: '3', messages: 'true', binary: 'true', two_phase: 'on' }],
  [160_000, { proto_version: '4', messages: 'true', binary: 'true', streaming: 'parallel', two_phase: 'on', origin: 'none' }],
  [130_000, { proto_version: '1' }],
])('asks a server of version %i for what it has', (version, expected) => {
  expect(pgoutputOptions(version, all)).toEqual({ publication_names: '"a","b""c"', ...expected });
});

it('streams on older servers where origins do not matter', () => {
  expect(pgoutputOptions(140_000, { ...all, origin: 'any' })).toMatchObject({ proto_version: '2', streaming: 'on' });
  expect(pgoutputOptions(180_000, { publications: ['a'] })).toEqual({ proto_version: '1', publication_names: '"a"', messages: 'true' });
});
