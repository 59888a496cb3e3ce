import { mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { JobStatus } from './snapshot.ts';
import { isRunning, readStateFile, StateFileWriter, stateFilePath } from './state-file.ts';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'pgweave-state-'));
});
afterEach(async () => {
  await rm(dir, { recursive: true, force: true });
});

describe('state file', () => {
  it('is written again and again, whole, for its owner only, and one last time at the end', async () => {
    const status = new JobStatus('default', 'clone');
    const writer = new StateFileWriter(dir, () => status.read(), { everyMs: 5 });
    await vi.waitFor(async () => expect(await readStateFile(dir)).not.toBeNull(), { timeout: 15_000 });
    status.emit({ type: 'phase', phase: 'copying' });
    await vi.waitFor(async () => expect((await readStateFile(dir))?.phase).toBe('copying'), { timeout: 15_000 });
    expect((await stat(stateFilePath(dir))).mode & 0o777).toBe(0o600);
    status.emit({ type: 'phase', phase: 'done' });
    await writer.close();
    expect((await readStateFile(dir))?.phase).toBe('done');
    expect(await readdir(dir)).toEqual(['status.json']);
  });

  it('tells the first failure to write once and never throws', async () => {
    const errors: unknown[] = [];
    const status = new JobStatus('default', 'clone');
    const writer = new StateFileWriter(join(dir, 'missing'), () => status.read(), { everyMs: 60_000, onError: (e) => errors.push(e) });
    await writer.write();
    await writer.close();
    expect(errors).toHaveLength(1);
  });

  it('is null where there is none and refuses what is damaged', async () => {
    expect(await readStateFile(dir)).toBeNull();
    await writeFile(stateFilePath(dir), '{"format":1,');
    await expect(readStateFile(dir)).rejects.toMatchObject({ code: 'state-file-unreadable' });
    await writeFile(stateFilePath(dir), '{"format":9,"tables":[]}');
    await expect(readStateFile(dir)).rejects.toMatchObject({ code: 'state-file-unreadable' });
  });

  it('knows a job that ended, or fell silent, from one that runs', () => {
    const status = new JobStatus('default', 'clone');
    status.emit({ type: 'phase', phase: 'streaming' });
    const s = status.read();
    expect(isRunning(s)).toBe(true);
    expect(isRunning(s, Date.now() + 60_000)).toBe(false);
    expect(isRunning({ ...s, pid: 2 ** 22 + 1 })).toBe(false);
    expect(isRunning({ ...s, phase: 'stopped' })).toBe(false);
  });
});
