//! Looks one profile up by id. Invariant: whatever the profile holds is shown as text.

import { byId, foreign, h, replace } from '../lib/dom';
import { call, explain } from './api';

/** Deepest level drawn as a list of its own; below it, JSON. */
const DEEPEST = 2;
const ENTRIES_SHOWN = 100;

export function listen(): void {
  byId<HTMLFormElement>('lookup').addEventListener('submit', (event) => {
    event.preventDefault();
    void lookUp(byId<HTMLInputElement>('profile-id').value.trim());
  });
}

async function lookUp(id: string): Promise<void> {
  if (id === '') return;
  say('Looking …');
  try {
    const answer = await call(`/v1/profiles/${encodeURIComponent(id)}`);
    if (answer.status === 404) return say('No such profile. Ids are user:… or anonymous:…; a bare id is tried as both.');
    if (!answer.ok) return say(await explain(answer));
    const profile: unknown = await answer.json();
    replace(byId('profile'), tree(profile, 0));
  } catch (error) {
    say(error instanceof TypeError ? 'The server cannot be reached.' : error instanceof Error ? error.message : 'The look-up failed.');
  }
}

function say(words: string): void {
  replace(byId('profile'), h('p', { class: 'empty' }, foreign(words)));
}

function tree(value: unknown, depth: number): Node {
  if (typeof value !== 'object' || value === null || depth > DEEPEST) return foreign(typeof value === 'string' ? value : (JSON.stringify(value) ?? '–'), 'mono');
  const entries = Object.entries(value);
  if (entries.length === 0) return h('span', { class: 'empty' }, 'none');
  return h('dl', { class: `tree depth-${depth}` }, ...entries.slice(0, ENTRIES_SHOWN).map(([name, member]) => h('div', {}, h('dt', {}, foreign(name)), h('dd', {}, tree(member, depth + 1)))),
    entries.length > ENTRIES_SHOWN && h('div', {}, h('dt', {}, 'and'), h('dd', {}, `${entries.length - ENTRIES_SHOWN} more`)));
}
