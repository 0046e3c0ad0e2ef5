// Elements, numbers and texts. Text reaches the document only as text nodes: there is no other way in these scripts.

const D = JSON.parse(document.getElementById('data').textContent);

function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === 'on') for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
    else if (name === 'vars') for (const [key, set] of Object.entries(value)) node.style.setProperty(key, set);
    else node.setAttribute(name, value === true ? '' : String(value));
  }
  add(node, children);
  return node;
}

function add(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return node;
}

// Columns of the data as row objects.
function rowsOf(columns) {
  const names = Object.keys(columns || {});
  if (!names.length) return [];
  return columns[names[0]].map((_, i) => Object.fromEntries(names.map((name) => [name, columns[name][i]])));
}

const DASH = '–';
const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat('en', { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const some = new Intl.NumberFormat('en', { maximumSignificantDigits: 3 });
// A rounding error of a billionth is no minus.
const settled = (v) => (Math.abs(v) < 0.05 ? 0 : v);
const fmt = {
  int: (v) => (v === null || v === undefined ? DASH : whole.format(v)),
  bps: (v) => (v === null || v === undefined ? DASH : tenth.format(settled(v))),
  rate: (v) => (v === null || v === undefined ? DASH : tenth.format(settled(v * 100)) + '%'),
  multiple: (v) => (v === null || v === undefined ? DASH : v.toFixed(2) + 'x'),
  minutes: (v) => (v === null || v === undefined ? DASH : v < 120 ? whole.format(v) + ' min' : tenth.format(v / 60) + ' h'),
  hours: (ms) => (ms === null || ms === undefined ? DASH : tenth.format(ms / 3600000) + ' h'),
  bytes: (v) => (v < 1e6 ? whole.format(v / 1e3) + ' kB' : tenth.format(v / 1e6) + ' MB'),
  number: (v) => (v === null || v === undefined ? DASH : some.format(v)),
  text: (v) => (v === null || v === undefined || v === '' ? DASH : String(v)),
  time: (ms) => (ms === null || ms === undefined ? DASH : new Date(ms).toISOString().slice(0, 16).replace('T', ' ')),
};

// Columns keep the names of the artifacts; only underscores give way to blanks.
const label = (name) => name.replaceAll('_', ' ');

const KINDS = D.kinds; // of policies, in the order of their colours
const kindColour = (kind) => `var(--kind${KINDS.indexOf(kind) + 1})`;

function card(title, ...children) {
  return el('section', { class: 'card' }, title && el('h2', {}, title), children);
}

function tile(value, name, more, warn) {
  return el('div', { class: warn ? 'tile warn' : 'tile' }, el('b', {}, value), el('span', {}, name), more && el('small', {}, more));
}

function empty(text) {
  return el('p', { class: 'empty' }, text);
}

function select(name, options, chosen, onChange, wide) {
  const control = el('select', { 'aria-label': name, on: { change: () => onChange(control.value) } },
    options.map(([value, text]) => el('option', { value, selected: String(value) === String(chosen) }, text)));
  return el('label', { class: wide ? 'wide' : null }, name, control);
}

// A part of the page that a control rebuilds in place; charts in it are drawn again.
function part(build) {
  const node = el('div', {});
  node.rebuild = () => {
    node.replaceChildren();
    add(node, [build()]);
    if (node.isConnected) settle();
  };
  node.rebuild();
  return node;
}

const counted = (n, what) => `${whole.format(n)} ${what}${n === 1 ? '' : 's'}`;
const sum = (values) => values.reduce((a, b) => a + b, 0);
const unique = (values) => [...new Set(values)];

// The month to start with: the newest with enough trades to tell anything; the months are newest first.
function telling(months, trades) {
  return months.find((month) => trades(month) >= D.min_calls) || months[0];
}

// Rows by month with `stretch`, which changes where months are missing: a line breaks there instead of bridging years.
function stretches(rows) {
  const number = (month) => Number(month.slice(0, 4)) * 12 + Number(month.slice(5));
  const at = {};
  let stretch = 0;
  let last = null;
  for (const month of unique(rows.map((r) => r.month)).sort()) {
    if (last !== null && number(month) !== number(last) + 1) stretch += 1;
    at[month] = stretch;
    last = month;
  }
  return rows.map((r) => ({ ...r, stretch: at[r.month] }));
}
