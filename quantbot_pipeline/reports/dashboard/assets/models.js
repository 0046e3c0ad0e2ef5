// Predictions and tuning: the verdict first, then what it rests on. No number of a model is shown without its verdict.

const GOOD_WORDS = ['better', 'earns more', 'tuned better'];
const BAD_WORDS = ['no better than the base rate', 'no better than the caller\'s rate', 'grid better'];

function wordOf(verdict) {
  if (verdict === null || verdict === undefined) return DASH;
  return el('span', { class: `verdict ${GOOD_WORDS.includes(verdict) ? 'evidence' : BAD_WORDS.includes(verdict) ? 'none' : ''}` }, verdict);
}

const target = (name, words) => [el('span', { class: 'mono' }, name), el('span', { class: 'sub block' }, words)];
const gainCell = (v) => (v === null || v === undefined ? DASH : [v > 0 ? '+' : '', fmt.rate(v)]);

function predictionsView() {
  const head = [el('h1', {}, 'Predictions'), el('p', { class: 'lead' }, 'What could be said of a call when it was made. The verdict judges months that no model had seen. Use a number only where its verdict is “better”, and bet on it only where its choice of calls “earns more”, too.')];
  const targets = rowsOf(D.predictions.targets);
  if (!targets.length) return [head, card(null, noRuns('No predictions yet (quantbot backtest model).'))];
  let chosen = targets[0].target;
  const drawing = part(() => targetPart(targets.find((t) => t.target === chosen)));
  return [head, card('Verdicts', el('p', {}, answer(targets)), targetTable(targets)),
    el('div', { class: 'controls' }, select('Target', targets.map((t) => [t.target, `${t.target}: ${t.verdict}`]), chosen, (value) => { chosen = value; drawing.rebuild(); }, true)), drawing];
}

// One sentence for whoever reads no further.
function answer(targets) {
  const better = targets.filter((t) => t.verdict === 'better');
  if (!better.length) return 'Nothing is predicted better than the share of all calls and the caller’s own record say it: do not use these numbers.';
  const earning = better.filter((t) => t.money_verdict === 'earns more').map((t) => t.target);
  return `${better.map((t) => t.target).join(', ')}: in months that it had not seen, the model knew more of a call than the share of all calls and the caller’s own record do. ${earning.length ? `The calls that it took for ${earning.join(', ')} earned more than all calls did.` : 'That the calls it takes earn more is not shown.'}`;
}

function targetTable(targets) {
  return table({ caption: 'What is predicted, and whether the months ahead confirmed it; to date', rows: targets, help: true, columns: [
    { name: 'target', text: true, first: true, wrap: true, show: (v, r) => target(v, r.words) },
    { name: 'verdict', text: true, wrap: 'narrow', show: wordOf, help: 'better: than the base rate (the share of all calls) and than the caller’s rate, each by 2 standard errors, in at least 3 months. Anything else: do not use the number.' },
    { name: 'money_verdict', text: true, wrap: 'narrow', show: wordOf, help: 'earns more: the calls that the model took returned more than all calls did, by 2 standard errors and with at least 30 taken. It is another question than whether the number is right.' },
    { name: 'gain_over_base', show: (v, r) => [gainCell(v), el('span', { class: 'range' }, ` z ${fmt.number(r.gain_over_base_z)}`)], help: 'By which share the loss is below that of the base rate, and that gain in standard errors.' },
    { name: 'gain_over_caller', show: (v, r) => [gainCell(v), el('span', { class: 'range' }, ` z ${fmt.number(r.gain_over_caller_z)}`)], help: 'The same against the rate of the call’s caller.' },
    { name: 'calls', show: fmt.int, help: 'Calls of months whose model was fitted and whose outcome is known.' }, { name: 'test_months', show: fmt.int },
    { name: 'auc', label: 'AUC', show: fmt.number, help: 'The chance that a call that reached the target had the higher number than one that did not. 0.5 is a coin.' },
    { name: 'taken_share', show: fmt.rate, help: 'Share of calls that the model took, by a limit fixed before the month.' },
    { name: 'month', text: true, help: 'The newest month behind the row.' },
  ] });
}

function targetPart(t) {
  const months = stretches(rowsOf(D.predictions.months).filter((m) => m.target === t.target));
  const judgedMonths = months.filter((m) => m.gain !== null);
  return [
    card(t.target, el('p', {}, wordOf(t.verdict), ' ', wordOf(t.money_verdict)), el('p', { class: 'saying' }, `The number says ${t.words}. To date it is ${t.meaning}.`), el('p', { class: 'note' }, t.target === 'return' ? 'The base rate is the mean of all earlier calls, the caller’s rate that of the caller’s own.' : 'The base rate is the share of all earlier calls that got there, the caller’s rate the share of the caller’s own.'), targetTiles(t)),
    el('div', { class: 'columns' },
      card('Gain to date', el('p', { class: 'note' }, 'By how much the loss is below that of the base rate, of all test months up to each one. Bars: 95%. At 0 the model knows nothing.'),
        judgedMonths.length ? chart('gain_months', { rows: judgedMonths, even: [{ gain: 0 }] }, { title: `Gain of ${t.target} over the base rate by month` }) : empty('No month is judged yet.')),
      card('Calibration', el('p', { class: 'note' }, 'What was predicted against what came. On the dashed line a chance of 30% comes 30 times of 100. Bars: 95%.'), calibrationChart(t)),
      card('Money', el('p', { class: 'note' }, 'Mean return to date of the calls that the model took, and of all. ', wordOf(t.money_verdict)), moneyChart(t, months)),
      card('Weights', el('p', { class: 'note' }, 'How much each member counts in the blend, month by month. All 0: the number is the base rate.'), weightsChart(t, months))),
    goesBy(t),
  ];
}

function targetTiles(t) {
  return el('div', { class: 'tiles' },
    tile(gainCell(t.gain_over_base), 'gain over the base rate', `z ${fmt.number(t.gain_over_base_z)}; 2 is needed`),
    tile(gainCell(t.gain_over_caller), 'gain over the caller’s rate', `z ${fmt.number(t.gain_over_caller_z)}; 2 is needed`),
    tile(fmt.int(t.calls), 'outcomes', `of ${counted(t.test_months, 'month')}`),
    tile(fmt.bps(t.taken_return_bps), 'taken, mean bps', `all ${fmt.bps(t.all_return_bps)}; z ${fmt.number(t.taken_return_z)}`),
    t.calibration_slope !== null && tile(fmt.number(t.calibration_slope), 'calibration slope', '1 is right'),
    t.covered !== null && tile(fmt.rate(t.covered), 'inside the interval', '80% was aimed at'));
}

function calibrationChart(t) {
  const rows = rowsOf(D.predictions.calibration).filter((r) => r.target === t.target);
  if (!rows.length) return empty(t.target === 'return' ? 'An amount has no bins; see the share inside the interval above.' : 'No outcome is known yet.');
  const ends = [0, Math.max(...rows.flatMap((r) => [r.predicted, r.high]))].map((v) => ({ predicted: v, observed: v }));
  return chart('calibration', { rows, diagonal: ends }, { title: `Predicted against observed, ${t.target}` });
}

function linesOf(months, pairs) {
  return months.flatMap((m) => pairs.map(([what, name]) => ({ month: m.month, stretch: m.stretch, what, value: m[name] }))).filter((r) => r.value !== null);
}

function moneyChart(t, months) {
  const rows = linesOf(months, [['taken', 'taken_return_bps'], ['all calls', 'all_return_bps']]);
  if (!rows.some((r) => r.what === 'taken')) return empty('The model has taken no call.');
  return chart('money_months', { rows, even: [{ value: 0 }] }, { title: `Mean return of the calls taken for ${t.target}, and of all` });
}

function weightsChart(t, months) {
  const rows = linesOf(months, [['caller', 'weight_caller'], ['linear', 'weight_linear'], ['boosting', 'weight_boosting']]);
  return rows.length ? chart('weight_months', { rows, even: [{ value: 0 }] }, { title: `Weights of the members, ${t.target}` }) : empty('No model was fitted yet.');
}

// What a model goes by is drawn only of one that is better: of any other it would be noise.
function goesBy(t) {
  const all = rowsOf(D.predictions.importance).filter((r) => r.target === t.target && r.loss_increase !== null);
  if (t.verdict !== 'better' || !all.length) return card('What it goes by', empty('Not drawn: of a model that is not better this would be noise.'));
  const rows = all.map((r) => ({ ...r, what: r.feature === '__all__' ? 'whole group' : 'feature', name: r.feature === '__all__' ? `all of ${r.group}` : label(r.feature) })).sort((a, b) => b.loss_increase - a.loss_increase);
  const levels = rowsOf(D.predictions.dependence).filter((r) => r.target === t.target);
  const features = rows.map((r) => r.feature).filter((f) => levels.some((l) => l.feature === f));
  let feature = features[0];
  const inside = el('details', {}, el('summary', {}, 'What it goes by: importance and dependence'));
  inside.addEventListener('toggle', () => {
    if (!inside.open || inside.childElementCount > 1) return; // drawn when somebody looks, once
    const drawing = part(() => chart('dependence', { rows: levels.filter((l) => l.feature === feature) }, { title: `Mean prediction of ${t.target} by ${label(feature)}` }));
    add(inside, [el('div', { class: 'columns' },
      card('Importance', el('p', { class: 'note' }, 'How much the loss grows when the values of a feature, or of a whole group, are shuffled among the calls.'), chart('importance', { rows }, { title: `Importance of features for ${t.target}` })),
      features.length > 0 && card('Dependence', el('p', { class: 'note' }, 'The mean prediction when a feature has a value, all else as it was. It is no cause.'),
        el('div', { class: 'controls' }, select('Feature', features.map((f) => [f, label(f)]), feature, (value) => { feature = value; drawing.rebuild(); })), drawing))]);
    settle();
  });
  return card(null, inside);
}

// Of a call's page.
function callPredictions(c) {
  if (!c.predictions.length) return null;
  const amount = (v, r) => (r.target === 'return' ? (v === null ? DASH : fmt.bps(v * 10000) + ' bps') : fmt.rate(v));
  return card('What was predicted of it', c.predictions.some((p) => p.stale) && el('p', {}, el('span', { class: 'tag' }, 'stale'), ' No candle in the day before the call: the models knew the caller alone.'),
    table({ caption: 'Said when the call was made; the verdicts are those to date', rows: c.predictions, columns: [
      { name: 'target', text: true, first: true, wrap: true, show: (v, r) => target(v, r.words) },
      { name: 'verdict', text: true, wrap: 'narrow', show: wordOf }, { name: 'money_verdict', text: true, wrap: 'narrow', show: wordOf },
      { name: 'value', show: (v, r) => [amount(v, r), r.low !== null && el('span', { class: 'range block' }, `[${amount(r.low, r)}, ${amount(r.high, r)}]`)] },
      { name: 'base_value', label: 'base rate', show: amount }, { name: 'caller_value', label: 'caller’s rate', show: amount },
      { name: 'take', text: true, show: yes }, { name: 'outside', label: 'features out of range', show: fmt.int }, { name: 'status', text: true },
    ] }));
}

function tuningView() {
  const head = [el('h1', {}, 'Tuning'), el('p', { class: 'lead' }, 'Levels tuned on earlier calls, between those of the grid: what they promised, and what they earned on the month after. On the diagonal a promise was kept.')];
  const schemes = rowsOf(D.tuning.schemes);
  if (!schemes.length) return [head, card(null, noRuns('No tuning yet (quantbot backtest tune).'))];
  const rows = rowsOf(D.tuning.callers).map((r) => ({ ...r, caller_name: callerName(r.caller) }));
  return [head, card('Verdicts', schemes.map((s) => el('p', {}, el('b', {}, s.scheme), ' ', wordOf(s.verdict), ` ${s.meaning}`)), schemeTable(schemes)),
    card('Promised against earned', tunedScatter(rows)), card(null, tunedTable(rows))];
}

function schemeTable(schemes) {
  const z = (name, plain) => (v, r) => [plain ? el('span', { class: 'verdict' }, v) : wordOf(v), el('span', { class: 'range' }, ` z ${fmt.number(r[name])}`)];
  return table({ caption: 'Pairs of choices on the same test calls, to date; 2 standard errors (z) decide', rows: schemes, columns: [
    { name: 'scheme', text: true, first: true }, { name: 'verdict', label: 'tuned against the grid', text: true, show: z('difference_z') },
    { name: 'leaning_verdict', label: 'the grid leaning on all callers, against not', text: true, show: z('leaning_z', true) }, { name: 'hold_verdict', label: 'the grid against holding', text: true, show: z('hold_z', true) },
    { name: 'month', text: true },
  ] });
}

function tunedScatter(rows) {
  const drawn = rows.filter((r) => r.caller !== ALL && r.promised_bps !== null && r.earned_bps !== null)
    .map((r) => ({ caller_name: r.caller_name, scheme: r.scheme, trades: r.test_calls, few: r.test_calls < D.min_calls, inside: r.promised_bps, outside: r.earned_bps }));
  if (!drawn.length) return empty('No caller had enough earlier calls to tune on.');
  const values = drawn.flatMap((r) => [r.inside, r.outside]);
  const ends = [Math.min(...values), Math.max(...values)].map((v) => ({ inside: v, outside: v }));
  const kept = drawn.filter((r) => r.outside >= r.inside).length;
  return [el('p', { class: 'note' }, `One dot per caller and scheme, larger with more test calls, faded below ${D.min_calls}; ${kept} of ${drawn.length} earned at least what was promised. Mean growth per call, bps.`),
    chart('walk_callers', { rows: drawn, diagonal: ends, zero: [{ y: 0 }] }, { title: 'Promise of tuned levels against what they earned, by caller', x: 'promised, bps', y: 'earned, bps', click: (row) => row.caller_name && (location.hash = '#/caller/' + encodeURIComponent(row.caller_name)) })];
}

function tunedTable(rows) {
  return table({ caption: 'Per caller and scheme, over all months, in bps of growth per call', rows, sort: ['test_calls', 'down'], search: 'Search callers or policies', help: true, rowClass: (r) => (r.test_calls < D.min_calls ? 'few' : null),
    filters: [{ label: 'Only anchored', hides: (r) => r.scheme !== 'anchored', on: false }],
    columns: [
      { name: 'caller_name', text: true, first: true, show: (_, r) => [callerLink(r.caller), r.test_calls < D.min_calls && fewTag(r.test_calls)] },
      { name: 'scheme', text: true }, { name: 'verdict', text: true, show: wordOf, help: 'Of the scheme, all callers together: tuned levels against the grid’s choice.' },
      { name: 'promised_bps', show: signed, help: 'Score of the tuned levels on the calls they were tuned on, leaning on all callers.' },
      { name: 'plateau_bps', show: signed, help: 'Mean score of the 16 nearest levels. A promise far above it stands on a needle.' },
      { name: 'earned_bps', show: signed, help: 'What the levels earned on the months for which something was promised.' },
      { name: 'out_of_sample_bps', label: 'tuned, all calls', show: signed, help: 'The same over all test calls; a month without a choice earns 0.' },
      { name: 'grid_bps', label: 'grid, all calls', show: signed, help: 'What the grid’s choice earned on the same calls.' }, { name: 'hold_bps', label: 'hold, all calls', show: signed, help: 'The same calls held to the horizon.' },
      { name: 'test_calls', show: fmt.int }, { name: 'months', show: fmt.int },
      { name: 'policy', label: 'levels of the newest month', text: true, wrap: 'wide', value: (r) => policyOf(r.policy).words, show: (_, r) => (r.policy === null ? 'no trade' : words(r.policy)) },
    ] });
}
