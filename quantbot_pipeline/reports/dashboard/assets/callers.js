// Callers: the leaderboard, and a page for each.

const leaderboard = rowsOf(D.callers.leaderboard).map((row, place) => ({ ...row, place }));
const few = (row) => row.calls !== null && row.calls < D.min_calls;

function fewTag(count) {
  return el('span', { class: 'tag', title: `fewer than ${D.min_calls}: the numbers say little` }, count ? `only ${count}` : 'none');
}

// Calls of one token move together: many of them are few observations.
function mintsTag(mints) {
  return el('span', { class: 'tag', title: 'calls of the same token are hardly independent: the intervals are too narrow' }, `${mints} token${mints === 1 ? '' : 's'}`);
}

// More than a fifth: the numbers beside it count sales that nobody could have made.
function endedCell(share) {
  return share > D.much_ended ? [fmt.rate(share), el('span', { class: 'tag', title: 'more than a fifth have no price until the window’s end: what stopped trading could not be sold at its last close' }, 'data end')] : fmt.rate(share);
}

function hitColumn(k) {
  return {
    name: `hit_${k}x_rate`, help: `Share of calls whose price touched ${k} times the entry within the window, as counted, and its 95% Wilson interval. Sorted by the interval's lower end.`,
    show: (v, row) => rateCell(v, row[`hit_${k}x_interval`]), order: (row) => row[`hit_${k}x_interval`]?.[0],
  };
}

function leaderboardColumns() {
  const most = Math.max(...leaderboard.map((r) => r.calls));
  const peak = Math.log(Math.max(...leaderboard.map((r) => r.median_peak_multiple), 1.01));
  return [
    { name: 'caller_name', text: true, first: true, value: (r) => callerName(r.caller), show: (_, r) => [callerLink(r.caller), few(r) ? fewTag(r.calls) : r.mints !== null && r.mints < D.min_calls && mintsTag(r.mints)] },
    ...verdictColumns(), trendColumn(),
    { name: 'calls', help: 'Calls with an entry and a window (excluded ones are counted under Errors).', show: (v) => [fmt.int(v), bar(v / most)] },
    { name: 'mints', help: 'Distinct tokens among them.', show: fmt.int },
    { name: 'last_call', text: true, help: 'The day of the last of them.', show: (v) => (v === null ? DASH : v.slice(0, 10)) },
    { name: 'data_end_share', help: 'Share of calls whose candles end before the window does. A token that stopped trading could not be sold at its last close.', show: endedCell },
    hitColumn(2), hitColumn(3), hitColumn(4),
    { name: 'median_peak_multiple', help: 'Median over calls of the highest price in the window, in multiples of the entry. Nobody sells there.', show: (v) => [fmt.multiple(v), bar(Math.log(v) / peak)] },
    { name: 'median_dd_bps', help: 'Median over calls of the deepest price in the window, from the entry.', show: (v) => [fmt.bps(v), bar(-v / 10000, true)] },
    { name: 'median_min_to_2x', label: 'median time to 2x', help: 'Median time from the alert to 2x, of the calls that reached it.', show: fmt.minutes },
    { name: 'stressed_avg_return_bps', help: 'Mean return of the first policy of each month’s search, with trades at the end of the data taken as a total loss.', show: signed },
    { name: 'policy', label: 'chosen policy', text: true, wrap: true, help: `The policy that earlier months chose for the newest one (walk-forward, ${D.callers.scheme}); no trade when none met the constraints.`,
      value: (r) => (r.policy_month === null ? null : policyOf(r.policy).words), show: (v, r) => (r.policy_month === null ? DASH : r.policy === null ? 'no trade' : words(r.policy)) },
    { name: 'in_sample_median_bps', help: 'Median return that the choices had on the months they were made from (median over the test trades).', show: signed },
    { name: 'out_of_sample_median_bps', help: 'Median return that the same choices had on the month after (median of the trades), and how many trades that were.', show: (v, r) => [signed(v), v !== null && el('span', { class: 'sub', 'data-column': 'out_of_sample_trades', 'data-value': r.out_of_sample_trades }, ` of ${fmt.int(r.out_of_sample_trades)}`)] },
  ];
}

function trendColumn() {
  return { name: 'trend', text: true, help: 'The last months, at most twelve: what the monthly choice returned in the mean, on the caller’s own scale. The middle block is 0, a dot is a month without a trade.', show: (v) => el('span', { class: 'trend' }, fmt.text(v)) };
}

// Callers that nobody can rank: with too few calls to be tested, or without a verdict.
const untested = (row) => (row.flags || '').includes('few_');
const unranked = (row) => (!judged(row) ? 2 : untested(row) ? 1 : 0);
const callerClass = (r) => [few(r) && 'few', unranked(r) > 0 && 'below'].filter(Boolean).join(' ') || null;

// The first screen: who has an edge, how sure that is, what it earned, and what changed.
function answerCard() {
  if (!leaderboard.length) return null;
  const count = (word) => leaderboard.filter((r) => judged(r) && r.verdict.startsWith(word)).length;
  const by = Object.fromEntries(leaderboardColumns().map((c) => [c.name, c]));
  const names = ['caller_name', 'verdict', 'choice_mean_bps', 'calls', 'last_call', 'trend', 'e_value', 'hit_2x_shrunk'];
  const top = leaderboard.slice(0, ANSWERS); // in order already
  const said = D.evidence.month ? `At the end of ${D.evidence.month}: evidence of an edge for ${count('evidence')} of ${leaderboard.length} callers, ${count('inconclusive')} inconclusive, ${count('none')} refuted.` : 'No verdict yet.';
  const more = leaderboard.length > top.length && el('p', {}, el('a', { href: '#/callers' }, `All ${leaderboard.length} callers`));
  return card('Who has an edge', el('p', {}, said, top.some(unranked) && top.some((r) => !unranked(r)) && ' Below the line: too few calls to test, or no verdict.'), D.evidence.month ? null : noVerdict(leaderboard),
    table({ caption: 'Callers by verdict, and what the monthly choice earned out of sample', rows: top, columns: names.map((name) => by[name]), sort: ['verdict', 'up'], below: unranked, rowClass: callerClass }), more);
}
const ANSWERS = 12;

function changesCard() {
  const { month, before, rows } = D.changes;
  if (before === null) return null;
  return card(`What changed since ${before}`, rows.length ? table({ caption: `Verdicts of ${month} against those of ${before}`, rows, columns: [
    { name: 'caller_name', text: true, first: true, show: (_, r) => callerLink(r.caller) }, { name: 'change', text: true, wrap: true }, { name: 'new_units', show: fmt.int },
    { name: 'e_before', show: big }, { name: 'e_value', show: big },
  ] }) : empty('No verdict changed, and no e-value moved by half.'));
}

function callersView() {
  const head = [el('h1', {}, 'Callers'), el('p', { class: 'lead' }, 'How sure each caller’s edge is, and what the price did after its calls over the newest run of every month. Brackets are 95% intervals. Only the verdict says that a caller is more than lucky: the other columns describe.')];
  if (!leaderboard.length) return [head, card(null, noRuns('No truth yet: no run of type path-only or full.'))];
  return [head, card(null, noVerdict(leaderboard), table({
    caption: 'Callers by verdict, then by e-value', columns: leaderboardColumns(), rows: leaderboard, sort: ['verdict', 'up'], below: unranked,
    search: 'Search callers or policies', rowClass: callerClass, help: true,
    filters: [{ label: `Hide callers with fewer than ${D.min_calls} calls`, hides: few, on: false }],
  }))];
}

function callerView(name) {
  const row = leaderboard.find((r) => D.names[r.caller] === name);
  const caller = D.names.indexOf(name);
  const head = [el('p', { class: 'note' }, el('a', { href: '#/callers' }, 'All callers')), el('h1', {}, name.slice(0, 300) || 'Caller', ' ', row && (few(row) ? fewTag(row.calls) : row.mints !== null && row.mints < D.min_calls && mintsTag(row.mints)))];
  if (caller <= ALL) return [head, card(null, empty('No such caller in these runs.'))];
  const measured = row && row.calls !== null;
  const parts = measured ? [callerTiles(row), callerShape(caller, row)] : [card(null, empty('None of this caller’s calls has a window (see Errors).'))];
  return [head, callerEvidence(caller, row), parts, callerFrontier(caller), callerChoices(caller), callerEquity(caller)];
}

function callerTiles(row) {
  const hit = (k) => {
    const [low, high] = row[`hit_${k}x_interval`];
    return tile(fmt.rate(row[`hit_${k}x_rate`]), `hit ${k}x rate`, `95%: ${whole.format(low * 100)}${DASH}${whole.format(high * 100)}%`);
  };
  return el('div', { class: 'tiles' },
    tile(fmt.int(row.calls), 'calls', `${fmt.int(row.mints)} ${row.mints === 1 ? 'token' : 'tokens'}`, few(row)), hit(2), hit(3), hit(4),
    tile(fmt.multiple(row.median_peak_multiple), 'median peak multiple'), tile(fmt.bps(row.median_dd_bps), 'median dd bps'),
    tile(fmt.minutes(row.median_min_to_2x), 'median time to 2x'));
}

function binLabels(edges, show) {
  return [`under ${show(edges[0])}`, ...edges.slice(1).map((edge, i) => `${show(edges[i])} to ${show(edge)}`), `${show(edges.at(-1))} or more`];
}

function shortBins(edges, show) {
  return [`<${show(edges[0])}`, ...edges.slice(1).map((edge, i) => `${show(edges[i])} to ${show(edge)}`), `≥${show(edges.at(-1))}`];
}

// Counts of one caller beside the share of all callers.
function shares(counts, all, labels) {
  const total = sum(counts) || 1;
  const everyone = sum(all) || 1;
  return counts.map((calls, i) => ({ bin: labels[i], calls, share: calls / total, all: all[i] / everyone }));
}

const addUp = (lists) => lists[0].map((_, i) => sum(lists.map((l) => l[i])));

function callerShape(caller, row) {
  const d = D.callers.distributions;
  const peaks = shares(d.peaks[caller], addUp(d.peaks), shortBins(d.peak_edges, (v) => fmt.number(v)));
  const deep = shares(d.drawdowns[caller].toReversed(), addUp(d.drawdowns).toReversed(), shortBins(d.drawdown_edges_bps.map((v) => -v / 100).reverse(), (v) => whole.format(v)));
  const months = rowsOf(D.callers.months).filter((m) => m.caller === caller);
  const beside = 'Bars: this caller. Ticks: all callers together.';
  return [
    el('div', { class: 'columns' },
      card('Peak', el('p', { class: 'note' }, `Highest price in the window, in multiples of the entry; a bar is half a doubling. ${beside}`), chart('histogram', { rows: peaks }, { title: 'Distribution of peak multiples' })),
      card('Drawdown', el('p', { class: 'note' }, `How far the price fell below the entry within the window, in %. ${beside}`), chart('histogram', { rows: deep }, { title: 'Distribution of drawdowns' })),
      card('Time to 2x', el('p', { class: 'note' }, 'Share of calls that had touched a multiple so long after the alert.'), chart('reached', { rows: reachedRows(caller, row) }, { title: 'Share of calls that reached 2x, 3x and 4x over time' })),
      card('Month by month', el('p', { class: 'note' }, 'Hit 2x rate of each month with its 95% interval.'), chart('hit_months', { rows: months.map((m) => ({ ...m, low: m.hit_2x_interval[0], high: m.hit_2x_interval[1] })) }, { title: 'Hit 2x rate by month' }))),
    card(null, table({ caption: 'Month by month', rows: months, sort: ['month', 'down'], columns: [
      { name: 'month', text: true, first: true }, { name: 'calls', show: fmt.int }, { name: 'hit_2x_rate', show: (v, m) => rateCell(v, m.hit_2x_interval) },
      { name: 'median_peak_multiple', show: fmt.multiple }, { name: 'median_dd_bps' },
    ], rowClass: (m) => (few(m) ? 'few' : null) })),
  ];
}

function reachedRows(caller, row) {
  const d = D.callers.distributions;
  const rows = [];
  const line = (what, counts, calls, all) => counts.forEach((count, i) => rows.push({
    what, all, minutes: d.minutes[i], after: fmt.minutes(d.minutes[i]), calls: count, share: count / calls }));
  for (const k of [2, 3, 4]) line(`${k}x`, d[`reached_${k}x`][caller], row.calls, false);
  line('2x, all callers', addUp(d.reached_2x), sum(leaderboard.map((r) => r.calls)), true);
  return rows;
}

// The searched policies of one caller (or of all) in one month, as rows for the scatter and the table.
function frontierRows(group) {
  return group.policy.map((policy, i) => ({
    ...policyOf(policy), policy, rank: group.rank[i], is_pareto: group.is_pareto[i] ? 'yes' : 'no',
    violations: D.violations[group.violations[i]] || 'none', meets_constraints: group.violations[i] ? 'no' : 'yes',
    objective_score: group.objective_score[i], avg_return_bps: group.avg_return_bps[i], median_return_bps: group.median_return_bps[i],
    value: group.median_return_bps[i], stop_out_rate: group.stop_out_rate[i], p95_drawdown_bps: group.p95_drawdown_bps[i],
  }));
}

// The upper left edge: nobody has a higher median at as few stop-outs. Its points are in the Pareto set.
function edge(rows) {
  if (!rows.length) return [];
  let best = -Infinity;
  const steps = rows.filter((r) => r.value !== null).sort((a, b) => a.stop_out_rate - b.stop_out_rate || b.value - a.value)
    .filter((r) => r.value > best && ((best = r.value), true)).map(({ stop_out_rate, value }) => ({ stop_out_rate, value }));
  return [...steps, { stop_out_rate: Math.max(...rows.map((r) => r.stop_out_rate)), value: best }];
}

function frontierScatter(groups, title) {
  const months = groups.map((g) => g.month).sort().reverse();
  let month = telling(months, (m) => groups.find((g) => g.month === m).trades);
  const hidden = new Set();
  const drawing = part(() => {
    const group = groups.find((g) => g.month === month);
    const rows = frontierRows(group);
    const shown = rows.filter((r) => !hidden.has(r.kind));
    const kept = rows.length === group.policies ? '' : ` Drawn: the Pareto set, the best ranks and a sample, ${rows.length} of ${group.policies} policies.`;
    return [
      el('p', { class: 'note' }, `${fmt.int(group.trades)} ${group.trades === 1 ? 'trade' : 'trades'} per policy. Faded: breaks a constraint. Ringed: in the Pareto set (median return, stop out rate, drawdown). Line: the edge that no policy passes, with a higher median at as few stop-outs. In sample: chosen and judged on the same calls.${kept}`),
      group.trades < D.min_calls && el('p', {}, fewTag(group.trades), ' trades: the best of hundreds of policies on so few calls is luck.'),
      kindLegend(unique(rows.map((r) => r.kind)), hidden, () => drawing.rebuild()),
      chart('frontier', { rows: shown, edge: edge(shown) }, { title: `${title}: median return against stop out rate`, y: 'median return, bps' }),
      table({ caption: `Best policies of ${month}`, rows: shown.slice(0, 15), columns: frontierColumns() }),
    ];
  });
  return [el('div', { class: 'controls' }, select('Month', months.map((m) => [m, m]), month, (value) => { month = value; drawing.rebuild(); })), drawing];
}

function frontierColumns() {
  return [
    { name: 'rank', show: fmt.int }, { name: 'policy', text: true, wrap: true, value: (r) => r.words, show: (_, r) => words(r.policy) },
    { name: 'meets_constraints', text: true }, { name: 'violations', text: true, wrap: 'narrow', show: (v) => label(v).replaceAll(',', ', ') }, { name: 'is_pareto', text: true }, { name: 'objective_score', show: fmt.int },
    { name: 'avg_return_bps', show: fmt.int }, { name: 'median_return_bps', show: fmt.int }, { name: 'stop_out_rate', show: fmt.rate }, { name: 'p95_drawdown_bps', show: fmt.int },
  ];
}

function callerFrontier(caller) {
  const groups = D.frontier.points.filter((g) => g.caller === caller);
  return card('Frontier', groups.length ? frontierScatter(groups, callerName(caller)) : empty('No policy search of this caller (quantbot backtest optimize).'));
}

function callerChoices(caller) {
  const rows = rowsOf(D.callers.choices).filter((r) => r.caller === caller);
  if (!rows.length) return card('Walk-forward', empty('No walk-forward of this caller (quantbot backtest walk-forward).'));
  return card('Walk-forward', el('p', { class: 'note' }, 'The policy that earlier months chose, and what it earned in the month itself. Pooled: too few own calls, so all callers’ calls chose.'), choicesTable(rows));
}

function choicesTable(rows) {
  return table({ caption: 'Choices month by month', rows, sort: ['month', 'down'], columns: [
    { name: 'month', text: true, first: true }, { name: 'scheme', text: true },
    { name: 'policy', label: 'chosen policy', text: true, wrap: true, value: (r) => policyOf(r.policy).words, show: (v, r) => (r.policy === null ? 'no trade' : words(r.policy)) },
    { name: 'pooled', text: true, show: yes }, { name: 'train_calls', show: fmt.int }, { name: 'out_of_sample_trades', show: fmt.int },
    { name: 'in_sample_avg_return_bps', show: signed }, { name: 'out_of_sample_avg_return_bps', show: signed },
    { name: 'in_sample_median_return_bps', show: signed }, { name: 'out_of_sample_median_return_bps', show: signed },
    { name: 'hold_avg_return_bps', show: signed }, { name: 'pooled_avg_return_bps', show: signed },
  ] });
}

const CURVES = 6; // more lines are not told apart

function callerEquity(caller) {
  const months = rowsOf(D.v1.best).filter((r) => r.caller === caller).sort((a, b) => (a.month < b.month ? -1 : 1)).map((r) => ({ ...r, start: D.v1.capital }));
  const curves = D.v1.equity.filter((c) => c.caller === caller).sort((a, b) => (a.month < b.month ? 1 : -1)).slice(0, CURVES);
  if (!curves.length && !months.length) return null;
  return card('V1 equity', el('p', { class: 'note' }, `The caller’s best V1 account of each month, which starts with ${whole.format(D.v1.capital)} every month. Selected and tested on the same calls: a baseline, not evidence.`),
    months.length > 1 && chart('finals', { rows: months }, { title: `Final capital of the V1 accounts of ${callerName(caller)} by month` }),
    curves.length > 0 && [months.length > curves.length && el('p', { class: 'note' }, `Below, the newest ${curves.length} of ${months.length} accounts, trade by trade.`), equityChart(curves.map((c) => [c.month, c]), `V1 equity of ${callerName(caller)} by month`)]);
}
