// Evidence: the cells of a verdict in the table of callers, and what a caller's page shows of it.

const judged = (row) => row.verdict !== null;
const FLAGS = {
  few_calls: 'too few calls to be tested', few_mints: 'calls of too few tokens to be tested', missing_data: 'calls without candles count as lost: fetch their candles',
  fading: 'the last months alone would not have grown',
};
const big = (v) => (v === null || v === undefined ? DASH : v >= 1e6 ? v.toExponential(1) : fmt.number(v));
const delay = (ms) => (ms === null || ms === undefined ? DASH : ms < 60000 ? whole.format(ms / 1000) + ' s' : fmt.minutes(ms / 60000));
const portion = (v) => (v === null || v === undefined ? DASH : fmt.number(v * 100) + '%');

function verdictCell(row) {
  if (!judged(row)) return DASH;
  const [word, lacks] = row.verdict.split(': ');
  return [
    el('span', { class: `verdict ${word}` }, word),
    lacks && el('span', { class: 'sub block' }, lacks, row.towards && `, towards ${row.towards}`),
    (row.flags || '').split(',').filter(Boolean).map((flag) => el('span', { class: 'tag', title: FLAGS[flag] }, label(flag))),
  ];
}

function choiceCell(v, row) {
  if (v === null || v === undefined) return DASH;
  return [signed(v), el('span', { class: 'range block' }, `[${whole.format(row.choice_low_bps)}, ${whole.format(row.choice_high_bps)}]`)];
}

function shrunkCell(v, row) {
  if (v === null || v === undefined) return DASH;
  return [rateCell(v, [row.hit_2x_low, row.hit_2x_high]), el('span', { class: 'sub block' }, `${fmt.int(row.hit_2x)} of ${fmt.int(row.units)}`)];
}

function verdictColumns() {
  return [
    { name: 'verdict', text: true, wrap: 'narrow', show: (_, r) => verdictCell(r), order: (r) => (judged(r) ? r.place : null),
      help: `How sure the caller’s edge is, at the end of ${D.evidence.month || 'a month with evidence'}. evidence: an account that paid for its bets grew more on these calls than luck explains, all callers and looks included. none: an edge that would matter is refuted. inconclusive: neither, and about how many more calls it takes.` },
    { name: 'e_value', label: 'e / threshold', help: 'The e-value, and what it must reach among this many callers to be claimed.', show: (v, r) => (judged(r) ? [big(v), el('span', { class: 'range' }, ` / ${big(r.e_threshold)}`)] : DASH) },
    { name: 'units', help: 'Independent observations: calls of one token within the window are one. Beside them the tokens.', show: (v, r) => (judged(r) ? [fmt.int(v), el('span', { class: 'sub block' }, `${fmt.int(r.unit_mints)} token${r.unit_mints === 1 ? '' : 's'}`)] : DASH) },
    { name: 'choice_mean_bps', label: 'choice mean, bps', help: 'Mean return of the policy that earlier months chose, a trade counted for at most the cap, and its 95% interval, which may be looked at every month.', show: choiceCell },
    { name: 'hit_2x_shrunk', label: '2x rate, shrunk', help: 'The 2x rate, shrunk towards what callers are like, its 95% interval, and the raw count. Sorted by the interval’s lower end, so that three lucky calls do not lead.', show: shrunkCell, order: (r) => r.hit_2x_low },
  ];
}

function noVerdict(rows) {
  if (rows.every(judged)) return null;
  const text = D.evidence.month ? `Below the line: no verdict in ${D.evidence.month}, because no call had seen its whole window. They are in no order of merit.` : 'No verdict yet: quantbot backtest evidence --from … --to …, then catalog-sync. Until then the callers are in no order of merit.';
  return el('p', { class: 'note' }, text);
}

// The part of a caller's page; without a verdict it says how to get one.
function callerEvidence(caller, row) {
  if (!row || !judged(row)) return card('Evidence', empty('No verdict on this caller (quantbot backtest evidence): nothing says that these numbers are more than luck.'));
  return [
    card(`Evidence, ${D.evidence.month}`, el('div', { class: 'saying' }, verdictCell(row)), evidenceTiles(row)),
    el('div', { class: 'columns' },
      card('e by month', el('p', { class: 'note' }, 'What 1 became on this caller’s calls, and what it must reach to be claimed. Logarithmic: 1 is where it began.'), eChart(caller)),
      card('Time to 2x against a stop', el('p', { class: 'note' }, 'Share of calls that had doubled before a stop, were stopped, or fell silent, so long after the entry. Shaded: 95%.'), incidenceChart(caller)),
      card('Cost of size', el('p', { class: 'note' }, 'Mean return of the monthly choice, by the share of the pool’s liquidity that is bought. Bars: 95%.'), costsChart(caller, 'size', portion)),
      card('Cost of delay', el('p', { class: 'note' }, `The same choice entered later. Bars: 95%.${sameCandle(caller)}`), costsChart(caller, 'latency', delay))),
  ];
}

function evidenceTiles(row) {
  const within = (low, high, show) => (low === null ? null : `95%: ${show(low)} to ${show(high)}`);
  return el('div', { class: 'tiles' },
    tile(big(row.e_value), 'e-value', `${big(row.e_threshold)} is needed`),
    tile(fmt.int(row.units), 'units', `of ${fmt.int(row.unit_mints)} token${row.unit_mints === 1 ? '' : 's'}`),
    tile(row.choice_mean_bps === null ? DASH : whole.format(row.choice_mean_bps), 'choice mean, bps', within(row.choice_low_bps, row.choice_high_bps, whole.format)),
    tile(fmt.rate(row.hit_2x_shrunk), '2x rate, shrunk', [within(row.hit_2x_low, row.hit_2x_high, fmt.rate), `; ${fmt.int(row.hit_2x)} hits`]),
    tile(row.median_ms_to_2x === null ? DASH : delay(row.median_ms_to_2x), 'median time of hits'),
    tile(row.break_even_share === null && row.choice_mean_bps !== null ? 'over 50%' : portion(row.break_even_share), 'break-even share', 'of the pool’s liquidity'),
    latencyTile(row));
}

function costsOf(caller, kind) {
  return rowsOf(D.evidence.costs).filter((c) => c.caller === caller && c.kind === kind).sort((a, b) => a.value - b.value);
}

function latencyTile(row) {
  const last = costsOf(row.caller, 'latency').at(-1);
  const never = row.break_even_latency_ms === null && last && last.mean_bps > 0;
  return tile(never ? `over ${delay(last.value)}` : delay(row.break_even_latency_ms), 'break-even latency', never && 'still positive there');
}

// Within one candle a later entry has the same price: a curve on coarse candles says little there.
function sameCandle(caller) {
  const same = costsOf(caller, 'latency').filter((c) => c.same_entry > 0.5);
  return same.length ? ` Up to ${delay(same.at(-1).value)} most units enter the same candle, so the curve says little there.` : '';
}

function eChart(caller) {
  const months = rowsOf(D.evidence.months).filter((m) => m.caller === caller);
  const point = (m, what, exact, limit) => ({ month: m.month, verdict: m.verdict, what, limit, exact, value: Math.max(exact, 1e-6) });
  const rows = stretches(months.flatMap((m) => [point(m, 'e-value', m.e_value, false), point(m, 'threshold', m.e_threshold, true)]));
  return chart('e_months', { rows, even: [{ value: 1 }] }, { title: 'e-value by month against its threshold' });
}

const notDrawn = () => empty(`Not drawn: the page carries the curves of ${D.evidence.curves} callers, and only those of callers with known trades.`);

function incidenceChart(caller) {
  const times = rowsOf(D.evidence.times).filter((t) => t.caller === caller).map((t) => ({ ...t, minutes: t.t_ms / 60000 }));
  if (!times.length) return notDrawn();
  const line = (what, name, t) => ({ what, minutes: t.minutes, after: fmt.minutes(t.minutes), share: t[name], low: what === '2x' ? t.hit_low : null, high: what === '2x' ? t.hit_high : null, at_risk: t.at_risk });
  const rows = times.flatMap((t) => [line('2x', 'hit_2x', t), line('stop', 'stop', t), line('silent', 'silent', t)]);
  return chart('incidence', { rows, band: times.map((t) => ({ minutes: t.minutes, low: t.hit_low, high: t.hit_high })) }, { title: 'Share of calls that doubled, were stopped or fell silent over time' });
}

function costsChart(caller, kind, show) {
  const rows = costsOf(caller, kind)
    .map((c) => ({ ...c, at: show(c.value), low: c.mean_bps - 1.96 * (c.se_bps || 0), high: c.mean_bps + 1.96 * (c.se_bps || 0) }));
  return rows.length ? chart('costs', { rows, even: [{ mean_bps: 0 }] }, { title: `Mean return by ${kind}` }) : notDrawn();
}
