// Tables that sort, search and filter, reachable by keyboard. Every number keeps its exact value in data-value.
//
// A column: {name, label?, help?, text?, wrap? (true, 'narrow', 'wide'), first?, value?(row), show?(value, row), order?(row)}; a filter: {label, hides(row), on}.
// Rows stay in the order of below(row), a number, however the table is sorted within it.

const SHOWN = 50; // rows of a long table before somebody asks for all of them

function table({ caption, columns, rows, sort, search, filters = [], rowClass, help, below }) {
  if (!rows.length) return empty('Nothing here.');
  const state = { by: sort ? sort[0] : null, down: sort ? sort[1] === 'down' : false, query: '', all: false };
  const made = rows.map((row) => ({ row, node: tableRow(columns, row, rowClass), text: searchText(columns, row) }));
  const body = el('tbody', {});
  const count = el('span', { class: 'count', role: 'status' });
  const more = el('button', { type: 'button', class: 'more', hidden: true, on: { click: () => {
    state.all = true;
    refresh();
  } } });

  function refresh() {
    let shown = made.filter(({ row, text }) => text.includes(state.query) && !filters.some((f) => f.on && f.hides(row)));
    const column = columns.find((c) => c.name === state.by);
    if (column) shown = ordered(shown, column, state.down);
    if (below) shown = shown.toSorted((a, b) => below(a.row) - below(b.row));
    const rest = state.all ? 0 : Math.max(0, shown.length - SHOWN);
    body.replaceChildren(...shown.slice(0, shown.length - rest).map((m) => m.node));
    more.hidden = rest === 0;
    more.textContent = `Show ${whole.format(rest)} more`;
    count.textContent = shown.length === made.length ? `${whole.format(made.length)} ${made.length === 1 ? 'row' : 'rows'}` : `${whole.format(shown.length)} of ${whole.format(made.length)} rows`;
    for (const head of heads) {
      if (head.dataset.column === state.by) head.setAttribute('aria-sort', state.down ? 'descending' : 'ascending');
      else head.removeAttribute('aria-sort');
    }
  }

  const heads = columns.map((column) => el('th', { scope: 'col', 'data-column': column.name, class: cellClass(column), title: column.help },
    el('button', { type: 'button', on: { click: () => {
      state.down = state.by === column.name ? !state.down : !column.text;
      state.by = column.name;
      refresh();
    } } }, column.label || label(column.name))));
  const controls = el('div', { class: 'controls' },
    search && el('label', { class: 'wide' }, el('input', { type: 'search', placeholder: search, 'aria-label': search, on: { input: (event) => {
      state.query = event.target.value.trim().toLowerCase();
      refresh();
    } } })),
    filters.map((f) => el('label', {}, el('input', { type: 'checkbox', checked: f.on, on: { change: (event) => {
      f.on = event.target.checked;
      refresh();
    } } }), f.label)),
    count);
  refresh();
  return el('div', {},
    (search || filters.length > 0 || rows.length > 20) && controls,
    el('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': caption },
      el('table', {}, el('caption', {}, caption), el('thead', {}, el('tr', {}, heads)), body)),
    more, help && explained(columns));
}

function explained(columns) {
  return el('details', {}, el('summary', {}, 'What the columns mean'),
    el('dl', {}, columns.filter((c) => c.help).map((c) => [el('dt', {}, c.label || label(c.name)), el('dd', {}, c.help)])));
}

function cellClass(column) {
  return [column.text && 'text', column.wrap && 'wrap', typeof column.wrap === 'string' && column.wrap, column.first && 'first'].filter(Boolean).join(' ') || null;
}

function valueOf(column, row) {
  return column.value ? column.value(row) : row[column.name];
}

function tableRow(columns, row, rowClass) {
  return el('tr', { class: rowClass ? rowClass(row) : null }, columns.map((column) => {
    const value = valueOf(column, row);
    const shown = column.show ? column.show(value, row) : column.text ? fmt.text(value) : fmt.bps(value);
    const attributes = { class: cellClass(column), 'data-column': column.name, 'data-value': typeof value === 'number' ? value : null };
    return column.first ? el('th', { ...attributes, scope: 'row' }, shown) : el('td', attributes, shown);
  }));
}

function searchText(columns, row) {
  return columns.filter((c) => c.text).map((c) => String(valueOf(c, row) ?? '')).join('\n').toLowerCase();
}

// Missing values stay last in both directions.
function ordered(made, column, down) {
  const key = column.order || ((row) => valueOf(column, row));
  return made.map((m) => ({ m, k: key(m.row) })).sort((a, b) => {
    const missing = (a.k === null || a.k === undefined) - (b.k === null || b.k === undefined);
    if (missing) return missing;
    const order = compared(a.k, b.k);
    return down ? -order : order;
  }).map(({ m }) => m);
}

function compared(a, b) {
  if (Array.isArray(a)) return a.reduce((order, v, i) => order || compared(v, b[i]), 0);
  return typeof a === 'string' ? a.localeCompare(b) : a - b;
}

const clamp = (v) => Math.max(0, Math.min(1, v));
const percent = (v) => (clamp(v) * 100).toFixed(1) + '%';

function bar(share, right) {
  return el('span', { class: right ? 'bar right' : 'bar', 'aria-hidden': 'true' }, el('i', { vars: { '--to': percent(share) } }));
}

// A rate with its interval: the filled part is the rate, the bracket what the calls allow.
function rateCell(rate, interval) {
  if (rate === null || rate === undefined) return DASH;
  const [low, high] = interval;
  return [
    fmt.rate(rate), ' ', el('span', { class: 'range' }, `${whole.format(low * 100)}${DASH}${whole.format(high * 100)}`),
    el('span', { class: 'bar', 'aria-hidden': 'true' }, el('i', { vars: { '--to': percent(rate) } }), el('s', { vars: { '--low': percent(low), '--high': percent(high) } })),
  ];
}

function signed(v) {
  if (v === null || v === undefined) return DASH;
  return el('span', { class: v > 0 ? 'good' : v < 0 ? 'bad' : null }, fmt.bps(v));
}

const yes = (v) => (v === null || v === undefined ? DASH : v ? 'yes' : 'no');
