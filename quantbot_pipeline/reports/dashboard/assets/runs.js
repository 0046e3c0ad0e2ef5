// Any two runs side by side: what differs in what they were made from, and what each measured.

function runsCard() {
  const runs = D.runs.runs;
  if (runs.length < 2) return card('Two runs', runsLeftOut(), empty(runs.length ? 'There is only one run: nothing to compare it with.' : 'No completed run yet.'));
  const options = runs.map((r, i) => [i, `${r.name ? r.name + ': ' : ''}${r.month} ${r.kind}, ${fmt.time(Date.parse(r.created_at))}${r.origin.git_branch ? ', ' + r.origin.git_branch.slice(0, 40) : ''} (${r.run_id.slice(0, 8)})`]);
  const like = runs.findIndex((r, i) => i && r.kind === runs[0].kind && r.month === runs[0].month);
  const state = { a: like > 0 ? like : runs.findIndex((r, i) => i && r.kind === runs[0].kind), b: 0 }; // the older one first
  if (state.a < 0) state.a = 1;
  const drawing = part(() => {
    const [a, b] = [runs[state.a], runs[state.b]];
    const choose = (which, name) => select(name, options, state[which], (value) => { state[which] = Number(value); drawing.rebuild(); }, true);
    return [el('div', { class: 'controls' }, choose('a', 'Run A'), choose('b', 'Run B')),
      el('div', { class: 'columns' }, el('div', {}, el('h3', {}, 'What differs'), runDifferences(a, b)), el('div', {}, el('h3', {}, 'What each measured'), runMeasures(a, b)))];
  });
  const kept = runs.length >= D.runs.most ? ` The ${D.runs.most} newest completed runs, and older ones with a name, a note or tags.` : '';
  return card('Two runs', el('p', { class: 'note' }, `Any two runs: only what differs in kind, inputs, code and parameters.${kept}`), runsLeftOut(), drawing);
}

function runsLeftOut() {
  const gone = D.runs.left_out;
  if (!gone.length) return null;
  const named = gone.map((run) => `${run.run_id} (${run.month})`).join(', ');
  return el('p', { class: 'note' }, `Left out, because missing or damaged: ${fmt.int(gone.length)} ${gone.length === 1 ? 'run' : 'runs'}: ${named}. See \`quantbot backtest verify\`, then sync the catalog.`);
}

function flattened(run) {
  const flat = { name: run.name, tags: run.tags, note: run.note, kind: run.kind, month: run.month, ...run.origin };
  const put = (path, value) => {
    if (Array.isArray(value) && value.some((v) => v && typeof v === 'object')) value.forEach((v, i) => put(`${path}[${i + 1}]`, v));
    else if (Array.isArray(value)) flat[path] = value.join(', ');
    else if (value && typeof value === 'object') for (const [k, v] of Object.entries(value)) put(`${path}.${k}`, v);
    else flat[path] = value;
  };
  for (const [name, value] of Object.entries(D.runs.parameters[run.parameters])) put(name, value);
  return flat;
}

function runDifferences(a, b) {
  const [left, right] = [flattened(a), flattened(b)];
  const names = unique([...Object.keys(left), ...Object.keys(right)]).filter((name) => (left[name] ?? null) !== (right[name] ?? null));
  if (!names.length) return empty(a === b ? 'The same run.' : 'The same kind, inputs, code and parameters.');
  const shown = (v) => el('span', { class: 'wrapped' }, fmt.text(v === true ? 'yes' : v === false ? 'no' : v));
  return pairTable('Origin and parameters that differ', names.map((name) => pair(name, shown(left[name]), shown(right[name]))));
}

function runMeasures(a, b) {
  const values = (run) => new Map(run.measures.map(([name, of, value]) => [JSON.stringify([of, name]), value]));
  const [left, right] = [values(a), values(b)];
  const keys = unique([...left.keys(), ...right.keys()]);
  if (!keys.length) return empty('Neither holds truth, policies, a frontier or a walk-forward.');
  let group = null;
  const rows = keys.flatMap((key) => {
    const [of, name] = JSON.parse(key);
    const show = name.endsWith('_rate') ? fmt.rate : name.endsWith('_ms') ? fmt.hours : name.endsWith('_bps') || name === 'objective_score' ? fmt.bps : name.endsWith('_multiple') ? fmt.multiple : fmt.int;
    const [x, y] = [left.get(key), right.get(key)];
    const gap = x === undefined || y === undefined ? DASH : (y > x ? '+' : '') + show(y - x);
    const cell = (v) => el('span', { 'data-column': name, 'data-value': v }, v === undefined ? DASH : show(v));
    const head = of === group || of === null ? [] : [el('tr', {}, el('th', { scope: 'rowgroup', class: 'text group', colspan: '4' }, of))];
    group = of;
    return [...head, pair(name.replace(/_ms$/, ''), cell(x), cell(y), el('td', {}, gap))];
  });
  return pairTable('Values of the runs', rows, 'B less A');
}
