// Callers and policies, which the data name by their positions.

const ALL = 0; // the position of __all__ in D.names

function callerName(caller) {
  return caller === ALL ? 'all callers' : D.names[caller];
}

function callerLink(caller) {
  const name = callerName(caller);
  if (caller === ALL) return el('span', { class: 'name' }, name);
  const shown = name.slice(0, 300);
  const parts = shown.split(/(?<=[:_\-./])/).map((part, i) => [i > 0 && el('wbr'), part]); // where it may break on a phone
  return el('a', { class: 'name', title: shown, href: '#/caller/' + encodeURIComponent(name) }, parts);
}

function policyOf(position) {
  if (position === null || position === undefined) return { policy_id: null, params: null, kind: 'unknown', words: 'no trade' };
  return {
    policy_id: D.policy.policy_id[position],
    params: D.policy.params[position],
    kind: D.policy.kind[position],
    words: D.policy.words[position],
  };
}

function words(position) {
  const policy = policyOf(position);
  return el('span', { title: policy.policy_id }, el('i', { class: 'swatch', vars: { '--swatch': kindColour(policy.kind) } }), ' ', policy.words);
}
