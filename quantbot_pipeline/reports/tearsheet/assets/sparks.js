// Small pictures drawn by hand: a call's window as one path. Hundreds of them stand in one table.

function svg(tag, attributes, ...children) {
  const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null) node.setAttribute(name, String(value));
  node.append(...children.flat(Infinity).filter(Boolean));
  return node;
}

// Prices on a logarithmic axis; the line at 1 is the entry price, the mark is the exit.
function callPicture(picture, words, width, height) {
  if (!picture) return el('span', { class: 'sub' }, 'no candles');
  const { hours, high, low, close, exit } = picture;
  const logs = [...high, ...low, 1, exit ? exit[1] : 1].map((v) => Math.log(Math.max(v, 1e-9)));
  const [bottom, top] = [Math.min(...logs), Math.max(...logs, Math.min(...logs) + 0.05)];
  const [from, to] = [hours[0], hours.at(-1) + picture.width];
  const x = (h) => ((h - from) / (to - from) * (width - 6) + 3).toFixed(1);
  const y = (v) => ((top - Math.log(Math.max(v, 1e-9))) / (top - bottom) * (height - 6) + 3).toFixed(1);
  const middle = hours.map((h) => h + picture.width / 2);
  const line = (values) => values.map((v, i) => `${x(middle[i])},${y(v)}`);
  const won = exit && exit[1] > 1;
  return svg('svg', { class: 'picture', viewBox: `0 0 ${width} ${height}`, width, height, role: 'img', 'aria-label': words },
    svg('polygon', { class: 'reach', points: [...line(high), ...line(low).reverse()].join(' ') }),
    svg('line', { class: 'entry', x1: x(from), x2: x(to), y1: y(1), y2: y(1) }),
    svg('line', { class: 'entry', x1: x(Math.max(0, from)), x2: x(Math.max(0, from)), y1: 0, y2: height }),
    svg('polyline', { class: 'close', points: line(close).join(' ') }),
    exit && svg('circle', { class: won ? 'won' : 'lost', cx: x(exit[0]), cy: y(exit[1]), r: 3.5 }));
}
