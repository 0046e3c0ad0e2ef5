// What there is: the overview, single calls, errors and exclusions.

function noRuns(text) {
  return [el('p', {}, text), el('p', { class: 'note' }, 'Runs appear here once they are committed and cataloged: quantbot demo makes a first set, quantbot backtest full --from … --to … your own, quantbot backtest catalog-sync registers them.')];
}

function overviewView() {
  const o = D.overview;
  const runs = rowsOf(o.runs);
  const head = [el('h1', {}, 'Overview'), el('p', { class: 'lead' }, 'Who has an edge, how sure that is, and what changed; then what was run, and what the numbers rest on.')];
  if (!runs.length) return [head, card(null, noRuns('No runs yet.'))];
  return [head, answerCard(), changesCard(), overviewTiles(o, runs), el('div', { class: 'columns' }, qualityCard(o.quality), card('Calls by month', callsByMonth(o.quality))), coverageCard(o), card(null, table({
    caption: 'Runs by type and status', rows: runs, columns: [
      { name: 'kind', text: true, first: true }, { name: 'status', text: true }, { name: 'runs', show: fmt.int }, { name: 'months', show: fmt.int }, { name: 'first_month', text: true }, { name: 'last_month', text: true },
      { name: 'calls', show: fmt.int }, { name: 'artifact_rows', show: fmt.int }, { name: 'bytes', show: fmt.bytes }, { name: 'avg_total_ms', show: (v) => fmt.int(v) },
    ] })), sourcesCard(o)];
}

function overviewTiles(o, runs) {
  const count = (status) => sum(runs.filter((r) => r.status === status).map((r) => r.runs));
  const failed = count('failed');
  const months = unique(o.coverage.month).sort();
  const excluded = sum(o.quality.excluded.count);
  const rejected = sum(o.quality.rejected_candles.count);
  const aside = o.quarantine.path.length;
  const small = leaderboard.filter(few).length;
  return el('div', { class: 'tiles' },
    tile(fmt.int(count('completed')), 'completed runs', failed ? `${failed} failed` : 'none failed', failed > 0),
    tile(fmt.int(months.length), 'months', months.length > 1 ? `${months[0]} to ${months.at(-1)}` : months[0]),
    tile(fmt.int(sum(o.quality.months.included)), 'calls with a window', excluded ? `${fmt.int(excluded)} more excluded` : 'none excluded'),
    tile(fmt.int(leaderboard.length), 'callers', small ? `${small} with fewer than ${D.min_calls} calls` : `all with ${D.min_calls} calls or more`, small > leaderboard.length / 2),
    tile(fmt.int(rejected), 'rejected candles', 'in windows of these calls', rejected > 0),
    tile(fmt.int(aside), 'in quarantine', aside ? 'run directories not trusted' : 'every run kept its promises', aside > 0));
}

function callsByMonth(quality) {
  const rows = rowsOf(quality.months).flatMap((m) => ['included', 'excluded'].map((what, at) => ({ month: m.month, what, at, calls: m[what] })));
  return rows.length ? chart('months', { rows }, { title: 'Calls by month, included and excluded', height: 220 }) : empty('No calls yet.');
}

function qualityCard(quality) {
  const part = (name, columns, none) => {
    const rows = rowsOf(columns);
    return rows.length ? rows.map((r) => el('tr', {}, el('td', { class: 'text' }, name), el('td', { class: 'text' }, label(r.reason)), el('td', { 'data-value': r.count }, fmt.int(r.count)))) : el('tr', {}, el('td', { class: 'text' }, name), el('td', { class: 'text' }, none), el('td', { 'data-value': 0 }, '0'));
  };
  return card('Data quality', el('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Data quality' }, el('table', { id: 'quality' }, el('caption', {}, 'What was left out, and why; over the newest run of each month'),
    el('thead', {}, el('tr', {}, el('th', { class: 'text', scope: 'col' }, 'what'), el('th', { class: 'text', scope: 'col' }, 'reason'), el('th', { scope: 'col' }, 'count'))),
    el('tbody', {}, part('excluded calls', quality.excluded, 'none'), part('rejected candles', quality.rejected_candles, 'none'), part('calls rejected at ingest', quality.rejected_calls, 'none')))));
}

function coverageCard(o) {
  const cells = rowsOf(o.coverage);
  const months = unique(cells.map((c) => c.month)).sort().reverse(); // what is new stands first
  const kinds = unique(cells.map((c) => c.kind));
  const at = new Map(cells.map((c) => [c.kind + ' ' + c.month, c]));
  const cell = (kind, month) => {
    const found = at.get(kind + ' ' + month);
    if (!found) return el('td', {}, '');
    const text = found.failed ? `${found.completed} + ${found.failed} failed` : String(found.completed);
    return el('td', { class: found.completed ? 'on' : 'failed' }, text);
  };
  return card('Months covered', el('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Months covered' }, el('table', { class: 'matrix' }, el('caption', {}, 'Completed runs by kind and month, the newest first'),
    el('thead', {}, el('tr', {}, el('th', { scope: 'col', class: 'text first' }, 'kind'), months.map((m) => el('th', { scope: 'col' }, m)))),
    el('tbody', {}, kinds.map((kind) => el('tr', {}, el('th', { scope: 'row', class: 'text first' }, kind), months.map((m) => cell(kind, m))))))));
}

function sourcesCard(o) {
  const rows = rowsOf(o.sources);
  const intervals = unique(rows.filter((r) => r.artifact === 'paths').map((r) => r.interval));
  const settings = rowsOf(o.mixed).map((r) => `${r.artifact} in ${r.settings}`);
  return card('Runs behind this page', intervals.length > 1 && el('p', {}, el('span', { class: 'tag' }, 'mixed intervals'), ` The truth of different months comes from different candles: ${intervals.join(', ')}.`),
    settings.length > 0 && el('p', {}, el('span', { class: 'tag' }, 'mixed settings'), ` The months behind these numbers were not run alike; they differ: ${settings.join('; ')}.`),
    el('details', {}, el('summary', {}, counted(unique(rows.map((r) => r.run_id)).length, 'run') + ' of ' + counted(unique(rows.map((r) => r.month)).length, 'month')), table({ caption: 'The newest completed run of each month, per artifact', rows, sort: ['month', 'down'], columns: [
      { name: 'month', text: true, first: true }, { name: 'artifact', text: true }, { name: 'interval', text: true }, { name: 'config_hash', text: true, show: (v) => el('span', { class: 'mono' }, v) },
      { name: 'run_id', text: true, show: (v) => el('span', { class: 'mono' }, v) }, { name: 'created_at', text: true, show: (v) => fmt.time(Date.parse(v)) },
    ] })));
}

function callsView() {
  const head = [el('h1', {}, 'Calls'), el('p', { class: 'lead' }, 'The calls with the highest peaks and those with the deepest drawdowns, each with its candles, entry, exits and levels. Extremes, not examples: most calls look like neither. Of calls that bought the same token at the same time, one is shown.')];
  if (!D.calls.length) return [head, card(null, noRuns('No calls yet.'))];
  const list = (which) => el('div', { class: 'pick' }, D.calls.map((c, i) => [c, i]).filter(([c]) => c.which === which).map(([c, i]) => el('a', { href: '#/call/' + i },
    el('b', {}, which === 'best' ? `${fmt.multiple(c.peak_multiple)} peak` : `${fmt.bps(c.dd_bps)} bps drawdown`), el('span', {}, callerName(c.caller).slice(0, 300)), el('span', {}, c.mint.slice(0, 60)), el('span', {}, fmt.time(c.alert_ts_ms)))));
  return [head, card('Highest peaks', list('best')), card('Deepest drawdowns', list('worst'))];
}

const MARKS = ['circle', 'square', 'diamond', 'triangle-up', 'triangle-down', 'cross'];

function callView(argument) {
  const c = D.calls[Number(argument)];
  const back = el('p', { class: 'note' }, el('a', { href: '#/calls' }, 'All calls'));
  if (!c) return [back, el('h1', {}, 'Call'), card(null, empty('No such call on this page.'))];
  const trades = rowsOf(c.trades).map((t, i) => ({ ...t, ...policyOf(t.policy), mark: MARKS[i % MARKS.length] }));
  return [
    back, el('h1', {}, `${c.mint.slice(0, 120)}, ${fmt.time(c.alert_ts_ms)}`), el('p', { class: 'lead' }, 'Called by ', callerLink(c.caller), ` on ${c.chain.slice(0, 60)}.`),
    el('div', { class: 'tiles' }, tile(fmt.multiple(c.peak_multiple), 'peak multiple', c.t_peak_ms ? `${fmt.minutes((c.t_peak_ms - c.entry_ts_ms) / 60000)} after the entry` : null), tile(fmt.bps(c.dd_bps), 'dd bps'),
      tile(fmt.number(c.p0), 'p0 (entry price)', `entered ${fmt.time(c.entry_ts_ms)}`), tile(fmt.minutes((c.entry_ts_ms - c.alert_ts_ms) / 60000), 'alert to entry'),
      tile(fmt.minutes(c.observed_ms / 60000), 'observed', c.censored ? 'cut short: the token stopped trading or the data ends' : 'the whole window', c.censored)),
    card('Candles', callChart(c, trades)), callPredictions(c), callOdd(c), card(null, trades.length ? table({ caption: 'What each replayed policy did with it', rows: trades, sort: ['realized_return_bps', 'down'], columns: [
      { name: 'policy', text: true, wrap: true, value: (t) => t.words, show: (_, t) => words(t.policy) }, { name: 'exit_reason', text: true, show: label },
      { name: 'exit', label: 'exit after', value: (t) => (t.exit_ts_ms - c.entry_ts_ms) / 60000, show: fmt.minutes }, { name: 'exit_multiple', show: fmt.multiple }, { name: 'realized_return_bps', show: signed },
    ] }) : empty('No policy was replayed on this call.')),
  ];
}

function candleBars(window) {
  const width = window.width[0];
  return rowsOf({ hours: window.hours, open: window.open, high: window.high, low: window.low, close: window.close })
    .map((k) => ({ ...k, start: k.hours, middle: k.hours + width / 2, end: k.hours + width * 0.86 }));
}

function callChart(c, trades) {
  if (!c.candles) return empty('The candle store has no candles of this window.');
  let policy = trades.length ? trades[0].policy : null;
  const width = c.candles.width[0];
  const rows = candleBars(c.candles);
  const [from, to] = [rows[0].start, rows.at(-1).start + width];
  const drawing = part(() => {
    const levels = [{ label: 'entry', multiple: 1 }, ...(c.levels[policy] || []).map(([name, multiple]) => ({ label: `${name} ${fmt.multiple(multiple)}`, multiple }))].map((level) => ({ ...level, beside: to, room: to + (to - from) * 0.22 }));
    const exits = trades.map((t) => ({ ...t, hours: (t.exit_ts_ms - c.entry_ts_ms) / 3600000 }));
    return chart('candles', { rows, levels, exits, entry: [{ hours: 0 }] }, { title: 'Candles with entry, exits and levels' });
  });
  return [
    el('p', { class: 'note' }, `Prices in multiples of the entry; one bar is ${fmt.minutes(width * 60)}. The line at 0 h is the entry; marks are exits, at the average price of their fills.`),
    trades.length > 0 && el('div', { class: 'controls' }, select('Levels of', trades.map((t) => [t.policy, t.words]), policy, (value) => { policy = Number(value); drawing.rebuild(); }, true)),
    drawing,
  ];
}

function errorsView() {
  const e = D.errors;
  const excluded = rowsOf(e.excluded);
  const failed = rowsOf(e.failed);
  const aside = rowsOf(D.overview.quarantine);
  return [
    el('h1', {}, 'Errors and exclusions'), el('p', { class: 'lead' }, 'What the runs complained about. Nothing is repaired silently: what cannot be used is left out and counted.'),
    card('Failed runs', failed.length ? table({ caption: 'Newest first', rows: failed, columns: [{ name: 'month', text: true, first: true }, { name: 'kind', text: true }, { name: 'created_at', show: fmt.time }, { name: 'error', text: true, wrap: true }, { name: 'run_id', text: true, show: (v) => el('span', { class: 'mono' }, v) }] }) : empty('No failed runs.')),
    card('Quarantine', aside.length ? table({ caption: 'Run directories that cannot be trusted', rows: aside, columns: [{ name: 'path', text: true, wrap: true }, { name: 'reason', text: true, wrap: true }] }) : empty('Nothing in quarantine: every run directory kept its promises.')),
    card('Messages', rowsOf(e.messages).length ? table({ caption: 'Messages of the newest runs, equal ones counted', rows: rowsOf(e.messages), search: 'Search messages', columns: [
      { name: 'level', text: true, first: true }, { name: 'kind', text: true }, { name: 'phase', text: true }, { name: 'message', text: true, wrap: true }, { name: 'rows', show: fmt.int }, { name: 'runs', show: fmt.int }, { name: 'first_month', text: true }, { name: 'last_month', text: true },
    ] }) : empty('No messages.')),
    card('Excluded calls', excluded.length ? table({ caption: 'Calls without a window, by caller', rows: excluded, sort: ['calls', 'down'], search: 'Search callers', columns: [
      { name: 'caller_name', text: true, first: true, value: (r) => callerName(r.caller), show: (_, r) => callerLink(r.caller) }, { name: 'reason', text: true, show: label }, { name: 'calls', show: fmt.int },
    ] }) : empty('No call was excluded.')),
  ];
}
