// Drawing: a specification of D.charts, the rows for its data names, the colours of the present theme.

let waiting = []; // charts of the view under construction
let views = []; // what is drawn, to be let go of when the view changes

function chart(name, datasets, { title, height, x, y, click } = {}) {
  const node = el('div', { class: 'chart' });
  node.request = { name, datasets, title, height, x, y, click };
  waiting.push(node);
  return node;
}

// Draws what waits and is in the document; resolves when all of it is drawn.
async function settle() {
  document.body.dataset.ready = '';
  const now = waiting.filter((node) => node.isConnected);
  waiting = [];
  await Promise.all(now.map(draw));
  document.body.dataset.ready = location.hash || '#/overview';
}

async function draw(node) {
  const { name, datasets, title, height, x, y, click } = node.request;
  const spec = JSON.parse(coloured(JSON.stringify(D.charts[name])));
  spec.datasets = datasets;
  // A layer without a row would have no extent, and Vega would say so.
  if (spec.layer) spec.layer = spec.layer.filter((layer) => !layer.data || (datasets[layer.data.name] || []).length > 0);
  spec.description = title;
  if (height) spec.height = height;
  retitle(spec, { x, y });
  if ((datasets.rows || []).length > 200) shrink(spec);
  const narrow = node.clientWidth < 520;
  const result = await vegaEmbed(node, spec, {
    ast: true, // the expressions are interpreted: the page's policy forbids to make code out of text
    actions: false, renderer: 'svg', defaultStyle: false, tooltip: showTip, config: theme(narrow),
  });
  if (click) result.view.addEventListener('click', (event, item) => item && item.datum && click(item.datum));
  views.push(result);
}

function retitle(spec, titles) {
  for (const layer of [spec, ...(spec.layer || [])]) {
    for (const [axis, title] of Object.entries(titles)) {
      if (title && layer.encoding && layer.encoding[axis] && layer.encoding[axis].title !== undefined) layer.encoding[axis].title = title;
    }
  }
}

// Hundreds of dots of the usual size would be one blot.
function shrink(spec) {
  for (const layer of [spec, ...(spec.layer || [])]) {
    if (layer.encoding && layer.encoding.size) layer.encoding.size.scale.range = [8, 90];
  }
}

function letGo() {
  for (const result of views) result.finalize();
  views = [];
  waiting = [];
  hideTip();
}

function redraw() {
  for (const result of views) result.finalize();
  views = [];
  waiting = [...document.querySelectorAll('.chart')].filter((node) => node.request);
  for (const node of waiting) node.replaceChildren();
  return settle();
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim();
const coloured = (text) => text.replace(/"@(\w+)"/g, (_, name) => JSON.stringify(colour(name)));

function theme(narrow) {
  const font = getComputedStyle(document.body).fontFamily;
  const soft = colour('soft');
  return {
    background: 'transparent', font, autosize: { type: 'fit', contains: 'padding' },
    axis: { labelColor: soft, titleColor: soft, gridColor: colour('grid'), domainColor: colour('edge'), tickColor: colour('edge'), labelFontSize: 12, labelSeparation: 8, titleFontSize: 12, titleFontWeight: 'normal', labelLimit: 160 },
    legend: { labelColor: colour('ink'), titleColor: soft, labelFontSize: 12, columns: narrow ? 2 : 5, labelLimit: narrow ? 104 : 200, symbolStrokeWidth: 2 },
    view: { stroke: null },
  };
}

// The tooltip is made of text nodes; the one that comes with the library would build markup.
let tip = null;

function showTip(handler, event, item, value) {
  hideTip();
  if (value === null || value === undefined || value === '' || !event) return;
  const pairs = typeof value === 'object' ? Object.entries(value) : [['', value]];
  tip = el('div', { class: 'tip', role: 'tooltip' }, el('dl', {}, pairs.map(([name, text]) => [el('dt', {}, label(name)), el('dd', {}, fmt.text(text))])));
  document.body.append(tip);
  const at = event.touches && event.touches.length ? event.touches[0] : event;
  const { width, height } = tip.getBoundingClientRect();
  const left = Math.min(at.clientX + 14, innerWidth - width - 8);
  const top = at.clientY + 16 + height > innerHeight ? at.clientY - height - 12 : at.clientY + 16;
  tip.style.left = Math.max(4, left) + 'px';
  tip.style.top = Math.max(4, top) + 'px';
}

function hideTip() {
  if (tip) tip.remove();
  tip = null;
}

// A legend of policy kinds whose buttons show and hide them.
function kindLegend(kinds, hidden, onChange) {
  return el('div', { class: 'legend', role: 'group', 'aria-label': 'Kinds of policies shown' }, KINDS.filter((k) => kinds.includes(k)).map((kind) => {
    const button = el('button', { type: 'button', 'aria-pressed': String(!hidden.has(kind)), on: { click: () => {
      if (hidden.has(kind)) hidden.delete(kind); else hidden.add(kind);
      button.setAttribute('aria-pressed', String(!hidden.has(kind)));
      onChange();
    } } }, el('i', { class: 'swatch', vars: { '--swatch': kindColour(kind) } }), label(kind));
    return button;
  }));
}
