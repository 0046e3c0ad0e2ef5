// The sections, the address (#/section/…), the theme; the last script, which starts the page.

const SECTIONS = [
  ['overview', 'Overview', overviewView],
  ['callers', 'Callers', callersView],
  ['policies', 'Policies', policiesView],
  ['frontier', 'Frontier', frontierView],
  ['walk-forward', 'Walk-forward', walkForwardView],
  ['tuning', 'Tuning', tuningView],
  ['v1', 'V1 equity', v1View],
  ['predictions', 'Predictions', predictionsView],
  ['anomalies', 'Anomalies', anomaliesView],
  ['calls', 'Calls', callsView],
  ['errors', 'Errors', errorsView],
];
const PAGES = { caller: [callerView, 'callers'], call: [callView, 'calls'], anomaly: [anomalyView, 'anomalies'] };

function route() {
  const hash = location.hash.startsWith('#/') ? location.hash : '#/overview';
  const [name, ...rest] = hash.slice(2).split('/');
  let argument = rest.join('/');
  try {
    argument = decodeURIComponent(argument);
  } catch {
    argument = '';
  }
  return { name, argument };
}

function show(focus) {
  if (location.hash && !location.hash.startsWith('#/')) return; // the skip link
  const { name, argument } = route();
  const [view, section] = PAGES[name] || [(SECTIONS.find((s) => s[0] === name) || SECTIONS[0])[2], name];
  letGo();
  for (const link of document.querySelectorAll('#nav a')) {
    if (link.dataset.section === section) {
      link.setAttribute('aria-current', 'page');
      const bar = link.parentNode; // on a phone the sections scroll sideways
      bar.scrollLeft = link.offsetLeft - bar.offsetLeft - (bar.clientWidth - link.offsetWidth) / 2;
    }
    else {
      link.removeAttribute('aria-current');
    }
  }
  const main = document.getElementById('main');
  main.replaceChildren();
  add(main, [view(argument)]);
  const title = main.querySelector('h1');
  document.title = (title ? title.textContent.slice(0, 80) + ' · ' : '') + 'Calls lab';
  if (focus && title) {
    title.setAttribute('tabindex', '-1');
    title.focus({ preventScroll: true });
    scrollTo(0, 0);
  }
  return settle();
}

function start() {
  startTheme();
  add(document.getElementById('nav'), SECTIONS.map(([name, text]) => el('a', { href: '#/' + name, 'data-section': name }, text)));
  add(document.getElementById('foot'), [`Built ${fmt.time(Date.parse(D.built_at))} UTC by quantbot ${D.version} from verified runs. `,
    'Returns and drawdowns are in basis points (100 bps = 1%), after fees and slippage where a policy traded. Times are UTC.']);
  addEventListener('hashchange', () => show(true));
  addEventListener('keydown', (event) => event.key === 'Escape' && hideTip());
  show(false);
}

start();
