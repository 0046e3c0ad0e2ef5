// What the searches found over callers: the optimization frontier, the walk-forward, the V1 accounts.

const VERDICT_HELP = 'What the evidence of that month, or of the last one before, says of the caller: evidence, inconclusive or none; nothing where none was made.';

function frontierView() {
  const head = [el('h1', {}, 'Frontier'), el('p', { class: 'lead' }, 'The policy that each caller’s calls deserve: rank 1 of the search of a month. Chosen and judged on the same calls, so it flatters; Walk-forward says what was left of it.')];
  const best = rowsOf(D.frontier.best);
  if (!best.length) return [head, card(null, noRuns('No policy search yet (quantbot backtest optimize, or full).'))];
  const months = unique(best.map((r) => r.month)).sort().reverse();
  let month = telling(months, (m) => best.find((r) => r.month === m && r.caller === ALL)?.trades);
  const drawing = part(() => bestOf(best.filter((r) => r.month === month), month));
  const pooled = D.frontier.points.filter((g) => g.caller === ALL);
  return [head, el('div', { class: 'controls' }, select('Month', months.map((m) => [m, m]), month, (value) => { month = value; drawing.rebuild(); })), drawing,
    pooled.length && card('All callers pooled', frontierScatter(pooled, 'All callers pooled'))];
}

const NAMED = 12; // dots with a name beside them

function bestOf(best, month) {
  const rows = best.map((r) => ({ ...r, ...policyOf(r.policy), caller_name: callerName(r.caller), value: r.median_return_bps, violations: D.violations[r.violations] || 'none', meets: yes(r.meets_constraints) }));
  const drawn = rows.filter((r) => r.caller !== ALL).map((r) => ({ ...r, meets_constraints: r.meets }));
  const hidden = new Set();
  const ranked = [...drawn].sort((a, b) => b.objective_score - a.objective_score).slice(0, NAMED).map((r) => r.caller);
  for (const row of drawn) row.named = ranked.includes(row.caller) ? row.caller_name.slice(0, 40) : '';
  const scatter = part(() => [
    kindLegend(unique(drawn.map((r) => r.kind)), hidden, () => scatter.rebuild()),
    chart('best', { rows: drawn.filter((r) => !hidden.has(r.kind)) }, { title: `Best policy of each caller in ${month}`, y: 'median return, bps; logarithmic far from 0', click: (row) => row.caller_name && (location.hash = '#/caller/' + encodeURIComponent(row.caller_name)) }),
  ]);
  return [
    card(`Best policy of each caller, ${month}`, el('p', { class: 'note' }, 'One dot per caller: larger with more trades, faded when its best policy breaks a constraint. Choose a dot to open the caller. Far from 0 the axis of returns is logarithmic, near 0 it is not.'), scatter),
    card(null, table({ caption: `Best policy of each caller, ${month}`, rows, sort: ['objective_score', 'down'], search: 'Search callers or policies', help: true, rowClass: (r) => (r.trades < D.min_calls ? 'few' : null),
      filters: [{ label: 'Only callers whose best policy meets the constraints', hides: (r) => !r.meets_constraints, on: false }],
      columns: [
        { name: 'caller_name', text: true, first: true, show: (_, r) => [callerLink(r.caller), r.trades < D.min_calls && fewTag(r.trades)] },
        { name: 'verdict', text: true, help: VERDICT_HELP }, { name: 'sample', text: true, help: 'in sample: chosen and judged on the same calls.' },
        { name: 'policy', text: true, wrap: true, value: (r) => r.words, show: (_, r) => words(r.policy) },
        { name: 'meets_constraints', text: true, value: (r) => r.meets, help: 'Whether trades, mean return, stop-outs, drawdown and time exposed keep the limits of the search.' },
        { name: 'violations', text: true, wrap: 'narrow', show: (v) => label(v).replaceAll(',', ', ') },
        { name: 'objective_score', order: (r) => [r.meets === 'yes' ? 1 : 0, r.objective_score], help: 'Callers whose policy meets the constraints come first. Growth of an account that stakes 4% on every call, in bps per trade (or the objective of the run).' },
        { name: 'avg_return_bps', show: signed, help: 'Mean realized return per trade.' }, { name: 'median_return_bps', show: signed, help: 'Half of the trades earned less.' },
        { name: 'stop_out_rate', show: fmt.rate, help: 'Share of trades that left at a stop with a loss.' }, { name: 'p95_drawdown_bps', help: 'The 5th percentile of the deepest price during the trade.' },
        { name: 'trades', show: fmt.int }, { name: 'data_end_share', help: 'Share of the trades that end because the data end before the window does.', show: endedCell },
        { name: 'stressed_avg_return_bps', show: signed, help: 'Mean return with such trades taken as a total loss.' }, { name: 'is_pareto', text: true, value: (r) => yes(r.is_pareto), help: 'No other policy of this caller is as good in median return, stop-outs and drawdown, and better in one.' },
      ] })),
  ];
}

function walkForwardView() {
  const head = [el('h1', {}, 'Walk-forward'), el('p', { class: 'lead' }, 'For every month, the policy that only earlier months could choose, and what it then earned. On the diagonal the past kept its promise; below it, it did not.')];
  const rows = rowsOf(D.callers.walk_forward);
  if (!rows.length) return [head, card(null, noRuns('No walk-forward yet (quantbot backtest walk-forward).'))];
  return [head, el('div', { class: 'columns' }, card('In sample against out of sample', promise(rows)), card('All callers pooled, month by month', pooledMonths())), card(null, walkTable(rows))];
}

function promise(rows) {
  let measure = 'avg';
  const drawing = part(() => {
    const [inside, outside] = [measure === 'avg' ? 'in_sample_avg_bps' : 'in_sample_median_of_medians_bps', `out_of_sample_${measure}_bps`];
    const drawn = rows.filter((r) => r.caller !== ALL && r[inside] !== null && r[outside] !== null).map((r) => ({ caller_name: callerName(r.caller), scheme: r.scheme, trades: r.trades, few: r.trades < D.min_calls, inside: r[inside], outside: r[outside] }));
    if (!drawn.length) return empty('No caller traded out of sample.');
    const values = drawn.flatMap((r) => [r.inside, r.outside]);
    const ends = [Math.min(...values), Math.max(...values)].map((v) => ({ inside: v, outside: v }));
    const above = drawn.filter((r) => r.outside >= r.inside).length;
    return [el('p', { class: 'note' }, `One dot per caller and scheme, larger with more trades, faded below ${D.min_calls}; ${above} of ${drawn.length} did at least as well as promised.`),
      chart('walk_callers', { rows: drawn, diagonal: ends, zero: [{ y: 0 }] }, { title: 'In-sample against out-of-sample return by caller', click: (row) => row.caller_name && (location.hash = '#/caller/' + encodeURIComponent(row.caller_name)) })];
  });
  return [el('div', { class: 'controls' }, select('Return', [['avg', 'average per trade'], ['median', 'median (in sample: of medians)']], measure, (value) => { measure = value; drawing.rebuild(); })), drawing];
}

function pooledMonths() {
  let scheme = D.callers.scheme;
  const drawing = part(() => {
    const rows = rowsOf(D.callers.choices).filter((r) => r.caller === ALL && r.scheme === scheme).sort((a, b) => (a.month < b.month ? -1 : 1));
    const traded = rows.filter((r) => r.policy !== null);
    if (!traded.length) return empty('No month had enough history to choose from.');
    const lines = traded.flatMap((r) => [['in sample', r.in_sample_avg_return_bps], ['out of sample', r.out_of_sample_avg_return_bps], ['hold', r.hold_avg_return_bps]].map(([what, value]) => ({ month: r.month, what, value, trades: r.out_of_sample_trades })));
    return [el('p', { class: 'note' }, `Average return per trade; hold: the same calls held to the horizon. ${rows.length - traded.length} of ${rows.length} months had too little history to choose from.`), chart('walk_months', { rows: stretches(lines) }, { title: 'Promise, result and holding by month', height: 300 })];
  });
  return [el('div', { class: 'controls' }, select('Scheme', [['anchored', 'anchored: all earlier months'], ['rolling', 'rolling: the last months']], scheme, (value) => { scheme = value; drawing.rebuild(); })), drawing];
}

function walkTable(rows) {
  return table({ caption: 'Per caller and scheme, over all months; most trades first', rows, sort: ['trades', 'down'], search: 'Search callers', help: true, rowClass: (r) => (r.trades < D.min_calls ? 'few' : null),
    filters: [{ label: 'Only anchored', hides: (r) => r.scheme !== 'anchored', on: false }],
    columns: [
      { name: 'caller_name', text: true, first: true, value: (r) => callerName(r.caller), show: (_, r) => [callerLink(r.caller), r.trades < D.min_calls && fewTag(r.trades)] },
      { name: 'verdict', text: true, help: VERDICT_HELP }, { name: 'sample', text: true, help: 'out of sample: judged on calls that the choice had not seen.' },
      { name: 'scheme', text: true, help: 'anchored: learns from all earlier months; rolling: from the last few.' },
      { name: 'months', show: fmt.int }, { name: 'months_traded', show: fmt.int, help: 'Months in which some policy met the constraints on the earlier calls.' }, { name: 'trades', show: fmt.int },
      { name: 'in_sample_avg_bps', show: signed, help: 'What the chosen policies had earned on the calls they were chosen on.' }, { name: 'out_of_sample_avg_bps', show: signed, help: 'What they earned on the month after.' },
      { name: 'in_sample_median_of_medians_bps', show: signed, help: 'Median of the monthly medians that stood behind each test trade.' }, { name: 'out_of_sample_median_bps', show: signed, help: 'Median of the test trades of all months.' },
      { name: 'out_of_sample_es95_bps', show: signed, help: 'Mean of the worst twentieth of the test trades.' },
      { name: 'data_end_share', help: 'Share of the test trades that end because the data end before the window does.', show: endedCell }, { name: 'stressed_avg_bps', show: signed, help: 'Mean return with such trades taken as a total loss.' },
      { name: 'hold_avg_bps', show: signed, help: 'The same calls held to the horizon.' }, { name: 'pooled_avg_bps', show: signed, help: 'The same calls with the policy that all callers’ calls chose.' },
    ] });
}

function equityChart(curves, title) {
  const rows = curves.flatMap(([name, c]) => c.minutes.map((m, i) => ({ name, days: m / 1440, equity: c.equity[i] })));
  return chart('equity', { rows, start: [{ equity: D.v1.capital }] }, { title });
}

function v1View() {
  const head = [el('h1', {}, 'V1 equity'), el('p', { class: 'lead' }, `The capital-aware baseline: ${whole.format(D.v1.capital)} per caller and month, the best of all pairs of its grid. It selects and tests on the same calls: a baseline to compare with, not evidence.`)];
  const best = rowsOf(D.v1.best);
  if (!best.length) return [head, card(null, noRuns('No V1 baseline yet (quantbot backtest baseline).'))];
  const months = unique(best.map((r) => r.month)).sort().reverse();
  let month = telling(months, (m) => sum(best.filter((r) => r.month === m && r.caller !== ALL).map((r) => r.trades)));
  const drawing = part(() => {
    const rows = best.filter((r) => r.month === month);
    const lines = rows.filter((r) => r.caller === ALL).concat(rows.filter((r) => r.caller !== ALL).slice(0, 8));
    const curves = lines.map((r) => [r.caller === ALL ? 'grouped' : callerName(r.caller).slice(0, 60), D.v1.equity.find((c) => c.month === month && c.caller === r.caller)]).filter((pair) => pair[1]);
    return [card(`Equity, ${month}`, el('p', { class: 'note' }, curves.length < rows.length ? `The grouped account and the ${curves.length - (lines[0].caller === ALL)} callers with the highest final capital.` : 'Every account of the month.'), curves.length ? equityChart(curves, `V1 equity curves of ${month}`) : empty('No equity curve in this month.')),
      card(null, v1Table(rows, month))];
  });
  return [head, el('div', { class: 'controls' }, select('Month', months.map((m) => [m, m]), month, (value) => { month = value; drawing.rebuild(); })), drawing];
}

function v1Table(rows, month) {
  return table({ caption: `Best account of each caller, ${month}`, rows, sort: ['final_capital', 'down'], search: 'Search callers', help: true, rowClass: (r) => (r.trades < D.min_calls ? 'few' : null), columns: [
    { name: 'caller_name', text: true, first: true, value: (r) => (r.caller === ALL ? 'grouped' : callerName(r.caller)), show: (_, r) => [r.caller === ALL ? 'grouped' : callerLink(r.caller), r.trades < D.min_calls && fewTag(r.trades)] },
    { name: 'final_capital', help: `Cash after all positions closed; every account starts with ${whole.format(D.v1.capital)}.` },
    { name: 'policy', text: true, wrap: true, value: (r) => policyOf(r.policy).words, show: (_, r) => words(r.policy) },
    { name: 'trades', show: fmt.int }, { name: 'avg_return_bps', show: signed }, { name: 'median_return_bps', show: signed }, { name: 'stop_out_rate', show: fmt.rate },
    { name: 'flags', text: true, help: 'collapsed: even the best pair ends below its start; extreme: it lies at the edge of the grid.', show: (v) => fmt.text(v).replaceAll(',', ', ') },
    { name: 'skipped_max_positions', label: 'skipped: too many open', show: fmt.int, help: `Calls not bought because ${D.v1.max_positions} positions were open.` },
    { name: 'skipped_below_min_size', label: 'skipped: too little cash', show: fmt.int, help: `Calls not bought because the size would be below ${D.v1.min_size}.` },
  ] });
}
