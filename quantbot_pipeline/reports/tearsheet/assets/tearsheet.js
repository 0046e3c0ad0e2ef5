// The tear sheet: the verdict first, then what the account became, its months, its trades, the evidence, every call.

const NUMBER = { bps: (v) => fmt.bps(v), rate: (v) => fmt.rate(v), ratio: (v) => (v === null ? DASH : v.toFixed(2)), count: (v) => fmt.int(v), days: (v) => fmt.int(v), ms: (v) => fmt.hours(v) };
const UNIT = { bps: ' bps', days: ' days' };
const figures = Object.fromEntries(D.figures.map((f) => [f.name, f.value]));
const whose = D.caller === '__all__' ? 'all callers' : D.caller;
const isChoice = D.policy_id === null;
const calls = rowsOf(D.calls).map((row, i) => ({ ...row, i }));
const tradedCalls = figures.trades > 0;

function headPart() {
  const what = isChoice ? `The policy that earlier months chose (walk-forward, ${D.scheme}), month by month, on the calls of the month itself.` : `Policy ${D.policy_id}: ${D.policy_words}. It was named by hand, not chosen by the past.`;
  return [
    el('h1', {}, whose.slice(0, 300)), el('p', { class: 'verdict-line' }, D.verdict), el('p', { class: 'lead' }, what),
    D.remarks.map((remark) => el('p', { class: 'note' }, remark)), headTiles(),
  ];
}

function headTiles() {
  const f = figures;
  const within = f.expectancy_low_bps === null ? null : `95%: ${whole.format(f.expectancy_low_bps)} to ${whole.format(f.expectancy_high_bps)}`;
  const of = `of ${fmt.int(f.months)} month${f.months === 1 ? '' : 's'}`;
  return el('div', { class: 'tiles' },
    tile(fmt.bps(f.expectancy_bps), 'expectancy a trade, bps', within), tile(fmt.int(f.trades), 'trades', `${fmt.int(calls.length)} calls with a window`),
    tile(fmt.rate(f.total_return), 'total return', `${fmt.rate(D.stake)} of the cash on each trade`), tile(fmt.rate(f.max_drawdown), 'deepest drawdown'),
    tile(f.sharpe === null ? DASH : f.sharpe.toFixed(2), 'Sharpe', of), tile(f.sortino === null ? DASH : f.sortino.toFixed(2), 'Sortino', of),
    tile(f.profit_factor === null ? DASH : f.profit_factor.toFixed(2), 'profit factor'), tile(fmt.rate(f.exposure_share), 'time in the market'));
}

function accountPart() {
  const rows = rowsOf(D.days).map((d) => ({ ...d, day: d.day_ts_ms, low: Math.max(d.low, 1e-9), equity: Math.max(d.equity, 1e-9) }));
  if (!rows.length) return card('Equity', empty('Nothing was traded.'));
  return [
    card('Equity', el('p', { class: 'note' }, 'What 1 became, at the end of each UTC day; the axis is logarithmic. Shaded: where 95 of 100 accounts would lie whose days were drawn again, one lost trade among them. The dashed line is 1.'), chart('growth', { rows, even: [{ equity: 1 }] }, { title: `Equity of ${whose}` })),
    card('Drawdown', el('p', { class: 'note' }, 'How far the equity lies below its highest before.'), chart('under_water', { rows }, { title: `Drawdown of ${whose}` })),
  ];
}

const MONTH_NAMES = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

function heatPart() {
  const at = new Map(D.months.map((m) => [m.month, m]));
  const most = Math.max(...D.months.map((m) => Math.abs(m.account_return)), 1e-9);
  const shade = (v) => ({ '--heat': v >= 0 ? 'var(--good)' : 'var(--bad)', '--much': (Math.abs(v) / most * 34).toFixed(0) + '%' });
  const cell = (month) => {
    const m = at.get(month);
    return m ? el('td', { vars: shade(m.account_return), 'data-value': m.account_return }, fmt.rate(m.account_return), el('small', {}, m.trades ? `${m.trades} trade${m.trades === 1 ? '' : 's'}` : 'no trade')) : el('td', {}, '');
  };
  const years = unique(D.months.map((m) => m.month.slice(0, 4))).reverse();
  const total = (year) => D.months.filter((m) => m.month.startsWith(year)).reduce((grown, m) => grown * (1 + m.account_return), 1) - 1;
  return card('Month by year', scrolled('Return of the account by month and year', el('table', { class: 'heat' }, el('caption', {}, 'Return of the account by month and year, and its trades'),
    el('thead', {}, el('tr', {}, el('th', { scope: 'col', class: 'text first' }, 'year'), MONTH_NAMES.map((m) => el('th', { scope: 'col' }, m)), el('th', { scope: 'col' }, 'year'))),
    el('tbody', {}, years.map((year) => el('tr', {}, el('th', { scope: 'row', class: 'text first' }, year), MONTH_NAMES.map((_, i) => cell(`${year}-${String(i + 1).padStart(2, '0')}`)), el('td', { 'data-value': total(year) }, fmt.rate(total(year)))))))));
}

function scrolled(name, node) {
  return el('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': name }, node);
}

function besidePart() {
  const line = (what, name) => D.months.filter((m) => m[name] !== null).map((m) => ({ month: m.month, what, value: m[name], trades: m.trades }));
  const rows = [...line('traded', 'sum'), ...line('held', 'hold_sum'), ...line('random calls', 'random_middle')];
  const band = D.months.filter((m) => m.random_low !== null).map((m) => ({ month: m.month, low: m.random_low, high: m.random_high }));
  return card('Against holding and random calls', el('p', { class: 'note' }, 'Returns added up, one stake a trade: what was traded, the same months’ calls held to the horizon, and as many calls of each month drawn at random from all callers’ (median; shaded: 95 of 100 draws).'),
    chart('sums', { rows, band }, { title: 'Sums of returns against holding and random calls' }), table({ caption: 'Month by month', rows: D.months, sort: ['month', 'down'], columns: [
      { name: 'month', text: true, first: true }, { name: 'trades', show: fmt.int }, { name: 'account_return', show: (v) => fmt.rate(v) }, { name: 'avg_return_bps', show: signed }, { name: 'hold_avg_return_bps', show: signed },
      { name: 'pooled_avg_return_bps', show: signed }, { name: 'policy_id', text: true, wrap: true, show: (v) => fmt.text(v === null ? 'no trade' : v) },
    ] }));
}

function returnsPart() {
  if (!tradedCalls) return null;
  const edge = (v) => fmt.rate(v);
  const rows = D.bins.map((b, i) => ({ low: Math.log2(1 + b.low), high: Math.log2(1 + b.high), trades: b.trades, share: b.trades / figures.trades, return: i === 0 ? `under ${edge(b.high)}` : `${edge(b.low)} to ${edge(b.high)}` }));
  return card('Returns and their tail', el('p', { class: 'note' }, 'Every bar is as wide as the others: a quarter of a doubling. The outer bars hold what lies beyond.'), chart('returns', { rows }, { title: 'Distribution of returns' }),
    scrolled('Quantiles of the returns', el('table', {}, el('caption', {}, 'Quantiles of the returns, bps'), el('thead', {}, el('tr', {}, Object.keys(D.quantiles).map((q) => el('th', { scope: 'col' }, q)))), el('tbody', {}, el('tr', {}, Object.values(D.quantiles).map((v) => el('td', { 'data-value': v }, signed(v))))))));
}

function figuresPart() {
  const groups = unique(D.figures.map((f) => f.group));
  return card('Figures', el('div', { class: 'figures' }, groups.map((group) => scrolled(group, el('table', {}, el('caption', {}, group), el('tbody', {}, D.figures.filter((f) => f.group === group).map((f) => el('tr', { 'data-figure': f.name }, el('th', { scope: 'row', title: f.meaning }, f.label),
    el('td', { 'data-value': f.value, title: f.meaning }, NUMBER[f.unit](f.value), f.value === null ? '' : UNIT[f.unit] || '')))))))),
    el('details', {}, el('summary', {}, 'What the figures mean'), el('dl', {}, D.figures.map((f) => [el('dt', {}, f.label), el('dd', {}, f.meaning)]))));
}

function hitsPart() {
  const row = D.row;
  if (!row) return null;
  const rows = [2, 3, 4].map((k) => ({ multiple: `${k}x`, hits: row[`hit_${k}x`], units: row.units, shrunk: row[`hit_${k}x_shrunk`], low: row[`hit_${k}x_low`], high: row[`hit_${k}x_high`] }));
  return card('Hit rates', el('p', { class: 'note' }, 'Of independent calls, shrunk towards what callers are like, with the 95% interval: what the evidence says.'), table({ caption: 'Hit rates of the evidence', rows, columns: [
    { name: 'multiple', text: true, first: true }, { name: 'hits', show: fmt.int }, { name: 'units', show: fmt.int }, { name: 'shrunk', label: 'rate, shrunk', show: (v, r) => (v === null ? DASH : rateCell(v, [r.low, r.high])) },
  ] }));
}

function pictureWords(row) {
  const traded = row.traded ? `; the trade returned ${fmt.bps(row.realized_return_bps)} bps, ${label(row.exit_reason)}` : '; not traded';
  return `Price of ${row.mint.slice(0, 60)} after the call of ${fmt.time(row.alert_ts_ms)}: peak ${fmt.multiple(row.peak_multiple)}${traded}`;
}

function extremesPart() {
  const list = (which) => el('div', { class: 'extremes' }, D[which].map((i) => el('figure', {}, callPicture(D.pictures[i], pictureWords(calls[i]), 320, 130),
    el('figcaption', {}, el('b', {}, `${fmt.bps(calls[i].realized_return_bps)} bps`), ` ${calls[i].mint.slice(0, 60)}, ${fmt.time(calls[i].alert_ts_ms)}, ${label(calls[i].exit_reason)}`))));
  if (!D.best.length) return null;
  return [card('Best calls', list('best')), card('Worst calls', list('worst'))];
}

function callsPart() {
  const rows = calls.toReversed();
  const kept = D.pictured < calls.length ? ` Pictures of the newest ${fmt.int(D.pictured)}.` : '';
  return card('Every call', el('p', { class: 'note' }, `Newest first. Line: close, in multiples of the entry price on a logarithmic axis; shaded: high to low; dashed: the entry; dot: the exit.${kept}`), table({
    caption: 'Every call with a window', rows, search: 'Search tokens', help: true, columns: [
      { name: 'alert_ts_ms', label: 'alert, UTC', first: true, show: fmt.time }, { name: 'picture', label: 'price', text: true, value: () => null, show: (_, r) => callPicture(D.pictures[r.i], pictureWords(r), 150, 42) },
      D.caller === '__all__' && { name: 'caller_name', text: true, wrap: 'narrow', show: (v) => v.slice(0, 60) }, { name: 'mint', text: true, wrap: 'narrow', show: (v) => v.slice(0, 60) },
      { name: 'realized_return_bps', show: signed, help: 'After costs; nothing where the call was not traded.' }, { name: 'exit_reason', text: true, show: (v) => (v === null ? DASH : label(v)) },
      { name: 'exit', label: 'exit after', value: (r) => (r.exit_ts_ms === null ? null : (r.exit_ts_ms - r.entry_ts_ms) / 60000), show: fmt.minutes },
      { name: 'peak_multiple', show: fmt.multiple, help: 'Highest price in the window, in multiples of the entry. Nobody sells there.' }, { name: 'dd_bps', help: 'Deepest price in the window, from the entry.' },
      { name: 't_2x_ms', label: 'time to 2x', value: (r) => (r.t_2x_ms === null ? null : (r.t_2x_ms - r.entry_ts_ms) / 60000), show: fmt.minutes }, { name: 'policy_id', text: true, wrap: 'narrow', show: fmt.text },
    ].filter(Boolean) }));
}

function runsPart() {
  return card('Runs behind this sheet', el('details', {}, el('summary', {}, `${D.runs.length} runs`), table({ caption: 'The newest completed run of each month', rows: D.runs, sort: ['month', 'down'], columns: [
    { name: 'month', text: true, first: true }, { name: 'run_id', text: true, show: (v) => el('span', { class: 'mono' }, v) }, { name: 'config_hash', text: true, show: (v) => el('span', { class: 'mono' }, fmt.text(v)) }] })));
}

const PARTS = [
  ['answer', null, headPart], ['equity', 'Equity', accountPart], ['months', 'Months', () => [heatPart(), besidePart()]], ['returns', 'Returns', () => [returnsPart(), figuresPart()]],
  ['evidence', 'Evidence', () => [hitsPart(), D.caller === '__all__' ? null : callerEvidence(0, D.row)]], ['calls', 'Calls', () => [extremesPart(), callsPart()]], ['runs', 'Runs', runsPart],
];

function start() {
  startTheme();
  document.title = `${whose.slice(0, 80)} · Tear sheet`;
  add(document.getElementById('nav'), PARTS.filter((p) => p[1]).map(([id, name]) => el('a', { href: '#' + id }, name)));
  add(document.getElementById('main'), PARTS.map(([id, name, build]) => el('div', { id, role: name ? 'group' : null, 'aria-label': name }, build())));
  add(document.getElementById('foot'), [`Built ${fmt.time(Date.parse(D.built_at))} UTC by quantbot ${D.version} from verified runs. Returns are in basis points (100 bps = 1%), after fees and slippage. Times are UTC. It describes the past.`]);
  addEventListener('keydown', (event) => event.key === 'Escape' && hideTip());
  return settle();
}

start();
