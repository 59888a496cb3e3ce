import type * as Dashboard from './dashboard.tsx';

/**
 * Loads the dashboard with Ink and React as they should be on a terminal. Two things they look up once, when they are loaded, so that the environment has to be right before:
 * - whether it says CI: then Ink draws nothing before its end, and whoever asks for the terminal dashboard on a terminal wants it there too;
 * - NODE_ENV: React's development build notes every drawing in the process's performance timeline, which grows for as long as a migration runs. All of React must be of one
 *   build, and what JSX is turned into imports it first of all: therefore this file has none, and nothing else imports the dashboard but as a type.
 */
export async function loadDashboard(): Promise<typeof Dashboard> {
  const wanted: Readonly<Record<string, string | undefined>> = { CI: undefined, CONTINUOUS_INTEGRATION: undefined, NODE_ENV: process.env['NODE_ENV'] ?? 'production' };
  const before = Object.keys(wanted).map((name) => [name, process.env[name]] as const);
  for (const [name, value] of Object.entries(wanted)) setVariable(name, value);
  try {
    return await import('./dashboard.tsx');
  } finally {
    for (const [name, value] of before) setVariable(name, value);
  }
}

function setVariable(name: string, value: string | undefined): void {
  if (value === undefined) delete process.env[name];
  else process.env[name] = value;
}
