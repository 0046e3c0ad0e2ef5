// Any two policies side by side: what differs, what each earned.

const METRICS = [
  ['trades_count', fmt.int], ['avg_return_bps', fmt.bps], ['median_return_bps', fmt.bps], ['p25_return_bps', fmt.bps], ['p75_return_bps', fmt.bps], ['p90_return_bps', fmt.bps],
  ['stop_out_rate', fmt.rate], ['loss_rate', fmt.rate], ['es95_bps', fmt.bps], ['p95_drawdown_bps', fmt.bps], ['stressed_avg_return_bps', fmt.bps],
  ['avg_time_exposed_ms', fmt.hours], ['avg_tail_capture', fmt.rate], ['objective_score', fmt.bps],
];
const METRIC_LABEL = { avg_time_exposed_ms: 'avg time exposed' };

// {name: rows of policies}: replayed ones over all months, and each month's searched ones.
function scopes() {
  const found = [];
  const replayed = rowsOf(D.policies.overall).map((r) => ({ ...r, ...policyOf(r.policy) }));
  if (replayed.length) found.push(['replayed', 'Replayed policies, all months', replayed]);
  for (const month of Object.keys(D.frontier.pooled).sort().reverse()) {
    const rows = rowsOf(D.frontier.pooled[month]).map((r) => ({ ...r, trades_count: r.trades, ...policyOf(r.policy) }));
    if (rows.length) found.push([month, `Searched in ${month}, all callers`, rows]);
  }
  return found;
}

function policiesView() {
  const head = [el('h1', {}, 'Policies'), el('p', { class: 'lead' }, 'Two policies: only the parameters that differ, what each would have earned after costs, and the difference on the calls that both have. Below, the same for two runs.')];
  const all = scopes();
  if (!all.length) return [head, card(null, noRuns('No policy was replayed or searched yet.')), runsCard()];
  const state = { scope: all[0][0], a: 0, b: Math.min(1, all[0][2].length - 1) };
  const drawing = part(() => compare(all, state, () => drawing.rebuild()));
  return [head, drawing, replayedTable(all), runsCard()];
}

function compare(all, state, refresh) {
  const rows = all.find((s) => s[0] === state.scope)[2];
  const options = rows.map((r, i) => [i, (r.rank ? `${r.rank}. ` : '') + r.words]);
  const a = rows[state.a];
  const b = rows[state.b];
  return [card(null,
    el('div', { class: 'controls' },
      select('Where', all.map(([name, text]) => [name, text]), state.scope, (value) => { Object.assign(state, { scope: value, a: 0, b: Math.min(1, all.find((s) => s[0] === value)[2].length - 1) }); refresh(); }, true),
      select('A', options, state.a, (value) => { state.a = Number(value); refresh(); }, true),
      select('B', options, state.b, (value) => { state.b = Number(value); refresh(); }, true)),
    el('div', { class: 'columns' },
      el('div', {}, el('h2', {}, 'What differs'), differences(a, b)),
      el('div', {}, el('h2', {}, 'What each earned'), metrics(state, a, b)))), paired(state, a, b), compareCharts(state, a, b)];
}

// {"trailing_stop.trail_pct": 0.1, …}: the rules of a combo are named by their kind, so a combo compares with a single rule.
function parameters(params) {
  const flat = {};
  const put = (path, value) => {
    if (Array.isArray(value)) value.forEach((v, i) => put(`${path}[${i + 1}]`, v));
    else if (value && typeof value === 'object') for (const [k, v] of Object.entries(value)) put(`${path}.${k}`, v);
    else flat[path] = value;
  };
  const seen = {};
  for (const { kind, ...rest } of params.kind === 'combo' ? params.policies : [params]) {
    seen[kind] = (seen[kind] || 0) + 1;
    put(seen[kind] > 1 ? `${kind} (${seen[kind]})` : kind, rest);
  }
  return flat;
}

const parameter = (name, v) => (v === undefined ? DASH : name.endsWith('_ms') ? fmt.minutes(v / 60000) : name.endsWith('_pct') || name.endsWith('fraction') ? fmt.number(v * 100) + '%' : String(v));

function pair(name, a, b, more) {
  return el('tr', { 'data-row': name }, el('th', { scope: 'row', class: 'text' }, label(name)), el('td', {}, a), el('td', {}, b), more);
}

function pairTable(caption, rows, more) {
  return el('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': caption }, el('table', {}, el('caption', {}, caption),
    el('thead', {}, el('tr', {}, el('th', { scope: 'col', class: 'text' }, ''), el('th', { scope: 'col' }, 'A'), el('th', { scope: 'col' }, 'B'), more && el('th', { scope: 'col' }, more))), el('tbody', {}, rows)));
}

function differences(a, b) {
  const head = [el('p', {}, el('b', {}, 'A '), words(a.policy)), el('p', {}, el('b', {}, 'B '), words(b.policy))];
  if (!a.params || !b.params) return [head, empty('The parameters of one of them are not recorded.')];
  const [left, right] = [parameters(a.params), parameters(b.params)];
  const names = unique([...Object.keys(left), ...Object.keys(right)]).filter((name) => left[name] !== right[name]);
  if (!names.length) return [head, empty('The same parameters.')];
  return [head, pairTable('Parameters that differ', names.map((name) => pair(name, parameter(name, left[name]), parameter(name, right[name]))))];
}

function metrics(state, a, b) {
  const known = METRICS.filter(([name]) => a[name] !== undefined);
  return pairTable(state.scope === 'replayed' ? 'Each over all its own trades' : `Over the same calls of ${state.scope}`, known.map(([name, show]) => {
    const gap = a[name] === null || b[name] === null ? null : b[name] - a[name];
    return pair(METRIC_LABEL[name] || name, show(a[name]), show(b[name]), el('td', {}, gap === null ? DASH : (gap > 0 ? '+' : '') + show(gap)));
  }), 'B less A');
}

// The difference on the calls that both have; what each earned elsewhere is left out.
function paired(state, a, b) {
  if (state.scope !== 'replayed' || a.policy === b.policy) return null;
  const found = rowsOf(D.policies.pairs).find((p) => (p.a === a.policy && p.b === b.policy) || (p.a === b.policy && p.b === a.policy));
  if (!found || !found.calls) return card('On the calls that both have', empty('They have no call in common.'));
  const turned = found.a !== a.policy;
  const [mine, other] = turned ? [found.avg_b_bps, found.avg_a_bps] : [found.avg_a_bps, found.avg_b_bps];
  const minus = (v) => (v === null ? null : -v);
  const [difference, low, high] = turned ? [minus(found.difference_bps), minus(found.high_bps), minus(found.low_bps)] : [found.difference_bps, found.low_bps, found.high_bps];
  return card('On the calls that both have', el('p', { class: 'note' }, 'The mean of the differences, B less A, call by call, with its 95% interval over the days of the entries. It holds for two policies named beforehand, not for the best of many.'),
    el('div', { class: 'tiles' }, tile(fmt.int(found.calls), 'calls that both have', `A has ${fmt.int(a.trades_count)}, B ${fmt.int(b.trades_count)}`), tile(fmt.bps(mine), 'A, mean, bps'), tile(fmt.bps(other), 'B, mean, bps'),
      tile(fmt.bps(difference), 'B less A, bps', low === null ? 'one day: no interval' : `95%: ${fmt.bps(low)} to ${fmt.bps(high)}`)));
}

function compareCharts(state, a, b) {
  const pairs = [['A', a], ['B', b]];
  const months = pairs.flatMap(([which, p]) => monthly(state.scope, p).map((m) => ({ which, words: p.words, ...m })));
  const drawn = [card('Month by month', el('p', { class: 'note' }, swatches(), ' Median return of each month.'), chart('policy_months', { rows: stretches(months) }, { title: 'Median return of both policies by month' }))];
  if (state.scope === 'replayed') drawn.push(card('Returns', el('p', { class: 'note' }, swatches(), ' Share of trades by realized return, in %; a bar is a quarter of a doubling.'), chart('policy_returns', { rows: pairs.flatMap(([which, p]) => returns(which, p)) }, { title: 'Distribution of returns of both policies' })));
  return el('div', { class: drawn.length > 1 ? 'columns' : null }, drawn);
}

function swatches() {
  return ['A', 'B'].map((which, i) => [el('i', { class: 'swatch', vars: { '--swatch': `var(--kind${i + 1})` } }), ` ${which} `]);
}

function monthly(scope, policy) {
  if (scope === 'replayed') return rowsOf(D.policies.months).filter((m) => m.policy === policy.policy).map((m) => ({ month: m.month, value: m.median_return_bps, trades: m.trades_count }));
  return Object.keys(D.frontier.pooled).sort().flatMap((month) => {
    const pooled = D.frontier.pooled[month];
    const at = pooled.policy.indexOf(policy.policy);
    return at < 0 ? [] : [{ month, value: pooled.median_return_bps[at], trades: pooled.trades[at] }];
  });
}

function returns(which, policy) {
  const counts = D.policies.returns[D.policies.overall.policy.indexOf(policy.policy)];
  const labels = shortBins(D.policies.return_edges_bps, (v) => whole.format(v / 100));
  const total = sum(counts) || 1;
  return counts.map((trades, i) => ({ which, words: policy.words, bin: labels[i], trades, share: trades / total }));
}

function replayedTable(all) {
  const found = all.find((s) => s[0] === 'replayed');
  if (!found) return null;
  const mixed = found[2].some((r) => r.configurations > 1);
  return card('Replayed policies', mixed && el('p', { class: 'note' }, 'Some policies were replayed with different settings (costs, latency, …) in different months; see configurations.'), table({
    caption: 'Over all months, newest run of each', rows: found[2], sort: ['median_return_bps', 'down'], search: found[2].length > 6 ? 'Search policies' : null,
    columns: [
      { name: 'policy', text: true, wrap: true, first: true, value: (r) => r.words, show: (_, r) => words(r.policy) },
      ...METRICS.filter(([name]) => name !== 'objective_score').map(([name, show]) => ({ name, label: METRIC_LABEL[name], show: name.endsWith('return_bps') ? signed : show })),
      mixed && { name: 'configurations', show: fmt.int },
    ].filter(Boolean),
  }));
}
