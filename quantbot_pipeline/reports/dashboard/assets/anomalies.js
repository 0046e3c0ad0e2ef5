// Anomalies: what is odd in the inputs, by month and kind, row by row, and the candles around some.

const SEVERE = ['error', 'warning', 'info'];
const severityCell = (v) => el('span', { class: v === 'info' ? 'tag plain' : v === 'error' ? 'verdict none' : 'tag' }, v);
// An address is known by its ends; whatever has blanks in it stays whole.
const short = (text) => (text.length > 24 && !/\s/.test(text) ? `${text.slice(0, 10)}…${text.slice(-6)}` : text.slice(0, 120));
const subjectOf = (r) => (r.subject_type === 'caller' && r.caller !== null ? callerLink(r.caller) : el('span', { title: r.subject.slice(0, 300) }, short(r.subject), r.other_subject && ` and ${short(r.other_subject)}`));
const kindCell = (v, r) => [label(v), el('span', { class: 'block' }, severityCell(r.severity))];

function anomaliesView() {
  const head = [el('h1', {}, 'Anomalies'), el('p', { class: 'lead' }, 'What is odd in candles and calls. Nothing is removed or repaired because of it. An error says that the numbers of some call are wrong if it is what it looks like.')];
  const a = D.anomalies;
  if (!a.months.length) return [head, card(null, noRuns('No anomalies looked for yet (quantbot backtest anomalies).'))];
  if (!a.total) return [head, card(null, empty(`No anomaly in ${counted(a.months.length, 'month')}.`))];
  return [head, anomalyMatrix(a), card('What, where, which calls', anomalyTable(a))];
}

function anomalyMatrix(a) {
  const counts = rowsOf(a.counts);
  const months = a.months.toReversed();
  const kinds = unique(counts.map((c) => c.kind)).sort();
  const of = (kind, month) => counts.filter((c) => c.kind === kind && c.month === month);
  const cell = (kind, month) => {
    const found = of(kind, month);
    if (!found.length) return el('td', {}, '');
    const all = sum(found.map((c) => c.rows));
    const errors = sum(found.filter((c) => c.severity === 'error').map((c) => c.rows));
    return el('td', { class: errors ? 'failed' : 'on', 'data-value': all }, all > errors && String(all), all > errors && errors > 0 && ', ', errors > 0 && counted(errors, 'error'));
  };
  return card('Months and kinds', el('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Anomalies by month and kind' }, el('table', { class: 'matrix' }, el('caption', {}, 'Rows by kind and month, the newest first'),
    el('thead', {}, el('tr', {}, el('th', { scope: 'col', class: 'text first' }, 'kind'), months.map((m) => el('th', { scope: 'col' }, m)))),
    el('tbody', {}, kinds.map((kind) => el('tr', {}, el('th', { scope: 'row', class: 'text first' }, label(kind)), months.map((m) => cell(kind, m))))))));
}

function anomalyTable(a) {
  const rows = rowsOf(a.rows).map((r, i) => ({ ...r, i }));
  const left = a.total - rows.length;
  return [
    el('p', { class: 'note' }, `A finding about a caller is no verdict; the caller’s verdict of the month stands beside it.${left > 0 ? ` The ${rows.length} worst of ${whole.format(a.total)} rows; quantbot anomalies shows all.` : ''}`),
    table({ caption: 'The worst first', rows, search: 'Search kinds, subjects or reasons', help: true,
      filters: [{ label: 'Only errors', hides: (r) => r.severity !== 'error', on: false }, { label: 'Only with calls touched', hides: (r) => !r.calls_touched, on: false }],
      columns: [
        { name: 'kind', text: true, first: true, show: kindCell, order: (r) => [SEVERE.indexOf(r.severity), r.kind], help: 'error: numbers of some call are wrong if this is what it looks like. warning: look at it. info: the rest.' },
        { name: 'reason', text: true, wrap: 'wide', show: (v, r) => [v.slice(0, 600), r.picture && el('span', { class: 'block' }, el('a', { href: '#/anomaly/' + r.i, 'aria-label': `Candles around ${label(r.kind)} of ${r.subject.slice(0, 60)}, ${fmt.time(r.from_ts_ms)}` }, 'candles'))] },
        { name: 'subject', text: true, wrap: true, value: (r) => `${r.subject} ${r.other_subject || ''}`, show: (_, r) => subjectOf(r) },
        { name: 'calls_touched', show: fmt.int, help: 'Included calls whose window meets the finding’s time; of a caller, that caller’s calls in the time.' },
        { name: 'hits_touched', show: fmt.int, help: 'Those of them that had doubled by the end of the month.' },
        { name: 'from_ts_ms', label: 'from', show: fmt.time },
        { name: 'verdict', label: 'caller’s verdict', text: true, help: 'What the evidence says of a caller; nothing for tokens, or where none was made.' },
      ] }),
  ];
}

function anomalyView(argument) {
  const r = rowsOf(D.anomalies.rows)[Number(argument)];
  const back = el('p', { class: 'note' }, el('a', { href: '#/anomalies' }, 'All anomalies'));
  if (!r || !r.picture) return [back, el('h1', {}, 'Anomaly'), card(null, empty('No candles of such an anomaly on this page.'))];
  const width = r.picture.width[0];
  const rows = candleBars(r.picture);
  const span = [{ from: 0, to: Math.max((r.to_ts_ms - r.from_ts_ms) / 3600000, width) }];
  return [
    back, el('h1', {}, `${label(r.kind)}, ${fmt.time(r.from_ts_ms)}`), el('p', { class: 'lead' }, severityCell(r.severity), ' ', r.subject.slice(0, 120), r.other_subject && ` and ${r.other_subject.slice(0, 120)}`),
    card(null, el('p', {}, r.reason.slice(0, 600)), el('p', { class: 'note' }, `${counted(r.calls_touched, 'call')} touched, ${r.hits_touched} of them doubled.`)),
    card('Candles around it', el('p', { class: 'note' }, `Prices in multiples of the first one shown; one bar is ${fmt.minutes(width * 60)}. Shaded: the time of the finding.`), chart('odd_candles', { rows, span }, { title: `Candles around ${label(r.kind)}` })),
  ];
}

// Of a call's page.
function callOdd(c) {
  if (!c.odd.length) return null;
  return card('What is odd around it', table({ caption: 'Anomalies of its token, its caller or the market, from the alert to the end of its window', rows: c.odd, columns: [
    { name: 'kind', text: true, first: true, show: kindCell, order: (r) => [SEVERE.indexOf(r.severity), r.kind] },
    { name: 'reason', text: true, wrap: 'wide', show: (v) => v.slice(0, 600) }, { name: 'subject', text: true, wrap: true, show: short }, { name: 'from_ts_ms', label: 'from', show: fmt.time },
    { name: 'verdict', label: 'caller’s verdict', text: true },
  ] }));
}
