import { readSync } from 'node:fs';
import type { Socket } from 'node:net';

/**
 * Reads a socket through its file descriptor, at moments of our choosing. The only file that touches private properties of Node's sockets
 * (`_handle.fd`, `readStop`, `readStart`; there since Node 0.10 and in 24). Why: an eager reader makes the walsender send every row by itself and costs it more
 * than half of its speed, and COPY come in pieces of 8 kB; what piles up in the kernel for some milliseconds and is read at once does not. Callers must do without
 * where this is not to be had: TLS, Windows, another Node.
 */
export interface DescriptorDrain {
  /** Node stops reading; the socket stays in flowing mode. */
  stop(): void;
  /** Node reads again. */
  start(): void;
  /** Reads what the kernel holds: the number of bytes, 0 where it holds none, -1 where the other side has ended or the connection broke. Never blocks. */
  read(into: Buffer, offset: number): number;
}

interface PrivateHandle {
  readonly fd: number;
  readStop(): number;
  readStart(): number;
}

export function descriptorDrain(socket: Socket): DescriptorDrain | undefined {
  if (process.platform === 'win32' || (socket as { encrypted?: boolean }).encrypted) return undefined;
  const { _handle: handle } = socket as unknown as { _handle?: Partial<PrivateHandle> | null };
  if (!handle || typeof handle.fd !== 'number' || handle.fd < 0 || typeof handle.readStop !== 'function' || typeof handle.readStart !== 'function') return undefined;
  const { fd } = handle;
  const live = handle as PrivateHandle;
  return {
    stop: () => void live.readStop(),
    start: () => {
      if (!socket.destroyed) live.readStart();
    },
    read(into, offset) {
      // After destroy the number may belong to another file.
      if (socket.destroyed) return -1;
      try {
        return readSync(fd, into, offset, into.length - offset, null) || -1;
      } catch (error) {
        return (error as NodeJS.ErrnoException).code === 'EAGAIN' ? 0 : -1;
      }
    },
  };
}
