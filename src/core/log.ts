import { pino, type DestinationStream, type Logger } from 'pino';
import { redactDeep } from './redact.ts';

export type Log = Logger;
/** `auto`: human where the stream is a terminal, JSON otherwise. */
export type LogFormat = 'auto' | 'human' | 'json';
export type LogLevel = 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'silent';

export interface LogOptions {
  /** Default `auto`. */
  readonly format?: LogFormat;
  readonly level?: LogLevel;
  /** Default `process.stderr`: stdout belongs to results. */
  readonly stream?: { write(text: string): unknown; readonly isTTY?: boolean };
}

/**
 * A logger whose every text, field and error loses its secrets before it is serialised (afterwards a secret with a quote in it would
 * stand there escaped and be missed).
 */
export async function createLog(options: LogOptions = {}): Promise<Log> {
  const stream = options.stream ?? process.stderr;
  const wanted = options.format ?? 'auto';
  const format = wanted === 'auto' ? (stream.isTTY === true ? 'human' : 'json') : wanted;
  const destination: DestinationStream = { write: (text: string) => void stream.write(text) };
  const log = pino(
    {
      level: options.level ?? 'info',
      base: {},
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: {
        level: (label) => ({ level: label }),
      },
      // Errors are turned into plain fields by `redactDeep`; pino's own serializer would print the stack.
      serializers: {},
      hooks: {
        logMethod(args, method) {
          method.apply(this, args.map((arg) => redactDeep(arg)) as Parameters<typeof method>);
        },
      },
    },
    format === 'json' ? destination : await humanStream(destination, stream.isTTY === true),
  );
  // pino hands a child's own fields to no hook; children inherit this method from their parent.
  const child = Reflect.get(log, 'child') as unknown as (this: Log, fields: Record<string, unknown>, childOptions?: object) => Log;
  Object.defineProperty(log, 'child', {
    value(this: Log, fields: Record<string, unknown>, childOptions?: object): Log {
      return child.call(this, redactDeep(fields) as Record<string, unknown>, childOptions);
    },
  });
  return log;
}

async function humanStream(destination: DestinationStream, terminal: boolean): Promise<DestinationStream> {
  // Loaded only where it is used: JSON logs do not pay for it at start.
  const { default: pretty } = await import('pino-pretty');
  const { Writable } = await import('node:stream');
  const out = new Writable({
    decodeStrings: false,
    write(chunk: string, _encoding, done) {
      destination.write(chunk);
      done();
    },
  });
  return pretty({
    destination: out, sync: true, colorize: terminal && !process.env['NO_COLOR'], translateTime: 'UTC:HH:MM:ss', ignore: 'pid,hostname,hint', singleLine: true,
    messageFormat: (line, key) => (typeof line['hint'] === 'string' ? `${String(line[key])}. ${line['hint']}` : String(line[key])),
  });
}
