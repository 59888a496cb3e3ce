/** What the terminal dashboard does with keys. Pure: a state, a key and what is known of the job in; a state and a command out. */

export type Mode = 'view' | 'filter' | 'confirm-switchover' | 'confirm-quit';

export interface TuiState {
  readonly mode: Mode;
  readonly filter: string;
  /** What is typed while confirming. */
  readonly typed: string;
  /** First table shown. */
  readonly top: number;
  /** What was last asked for or refused; null where there is nothing to tell. */
  readonly message: { readonly text: string; readonly tone: 'info' | 'warn' } | null;
}

export type TuiCommand = 'quit' | 'pause' | 'resume' | 'switchover';

export interface Key {
  /** The characters, empty for a special key. */
  readonly input: string;
  readonly name: 'up' | 'down' | 'page-up' | 'page-down' | 'home' | 'end' | 'enter' | 'escape' | 'backspace' | 'interrupt' | null;
}

export interface KeyContext {
  readonly tables: number;
  /** Lines for tables. */
  readonly room: number;
  readonly canAct: boolean;
  /** Why nothing can be asked for. */
  readonly note: string | null;
  /** What has to be typed before a switchover. */
  readonly word: string;
  /** Whether leaving ends the job, which is asked first. */
  readonly quitStopsJob: boolean;
}

export const firstState: TuiState = { mode: 'view', filter: '', typed: '', top: 0, message: null };

export function press(state: TuiState, key: Key, context: KeyContext): { state: TuiState; command: TuiCommand | null } {
  if (key.name === 'interrupt') return { state, command: 'quit' };
  switch (state.mode) {
    case 'filter':
      return { state: pressInFilter(state, key), command: null };
    case 'confirm-switchover':
      return pressInConfirm(state, key, context);
    case 'confirm-quit':
      if (key.input.toLowerCase() === 'y') return { state: { ...state, mode: 'view' }, command: 'quit' };
      return { state: { ...state, mode: 'view' }, command: null };
    case 'view':
      return pressInView(state, key, context);
    default:
      return state.mode satisfies never;
  }
}

function pressInView(state: TuiState, key: Key, context: KeyContext): { state: TuiState; command: TuiCommand | null } {
  const last = Math.max(0, context.tables - context.room);
  // The list may have become shorter since the state was made.
  const from = Math.min(state.top, last);
  const scroll = (top: number) => ({ state: { ...state, top: Math.min(last, Math.max(0, top)) }, command: null });
  switch (key.name) {
    case 'up': return scroll(from - 1);
    case 'down': return scroll(from + 1);
    case 'page-up': return scroll(from - context.room);
    case 'page-down': return scroll(from + context.room);
    case 'home': return scroll(0);
    case 'end': return scroll(last);
    case 'escape': return { state: { ...state, filter: '', top: 0, message: null }, command: null };
    default:
  }
  switch (key.input) {
    case 'q': return context.quitStopsJob ? { state: { ...state, mode: 'confirm-quit' }, command: null } : { state, command: 'quit' };
    case '/': return { state: { ...state, mode: 'filter', top: 0 }, command: null };
    case 'p': return act(state, context, 'pause');
    case 'r': return act(state, context, 'resume');
    case 's': return context.canAct ? { state: { ...state, mode: 'confirm-switchover', typed: '', message: null }, command: null } : act(state, context, 'switchover');
    default: return { state, command: null };
  }
}

function act(state: TuiState, context: KeyContext, command: TuiCommand): { state: TuiState; command: TuiCommand | null } {
  if (context.canAct) return { state: { ...state, message: null }, command };
  return { state: { ...state, message: { text: context.note ?? 'Nothing can be asked for from here.', tone: 'warn' } }, command: null };
}

function pressInFilter(state: TuiState, key: Key): TuiState {
  if (key.name === 'enter') return { ...state, mode: 'view' };
  if (key.name === 'escape') return { ...state, mode: 'view', filter: '', top: 0 };
  if (key.name === 'backspace') return { ...state, filter: withoutLast(state.filter), top: 0 };
  return { ...state, filter: state.filter + key.input, top: 0 };
}

function pressInConfirm(state: TuiState, key: Key, context: KeyContext): { state: TuiState; command: TuiCommand | null } {
  if (key.name === 'escape') return { state: { ...state, mode: 'view', typed: '', message: { text: 'Nothing was switched over.', tone: 'info' } }, command: null };
  if (key.name === 'backspace') return { state: { ...state, typed: withoutLast(state.typed) }, command: null };
  if (key.name !== 'enter') return { state: { ...state, typed: state.typed + key.input }, command: null };
  if (state.typed !== context.word) return { state: { ...state, mode: 'view', typed: '', message: { text: `That was not "${context.word}": nothing was switched over.`, tone: 'warn' } }, command: null };
  return { state: { ...state, mode: 'view', typed: '' }, command: 'switchover' };
}

const segmenter = new Intl.Segmenter(undefined, { granularity: 'grapheme' });

/** Without its last character as a person sees it. */
function withoutLast(text: string): string {
  return [...segmenter.segment(text)].slice(0, -1).map(({ segment }) => segment).join('');
}
