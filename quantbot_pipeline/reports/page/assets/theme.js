// Light or dark: as the system says, until somebody chooses.

const remembered = {
  get: () => { try { return localStorage.getItem('theme'); } catch { return null; } },
  set: (value) => { try { localStorage.setItem('theme', value); } catch { /* a page from disk may not remember */ } },
};

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  const button = document.getElementById('theme');
  button.textContent = name === 'dark' ? 'Light' : 'Dark';
  button.setAttribute('aria-label', `Switch to the ${name === 'dark' ? 'light' : 'dark'} theme`);
}

function startTheme() {
  const system = matchMedia('(prefers-color-scheme: dark)');
  setTheme(remembered.get() || (system.matches ? 'dark' : 'light'));
  system.addEventListener('change', () => {
    if (remembered.get()) return;
    setTheme(system.matches ? 'dark' : 'light');
    redraw();
  });
  document.getElementById('theme').addEventListener('click', () => {
    const next = document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark';
    remembered.set(next);
    setTheme(next);
    redraw();
  });
}
