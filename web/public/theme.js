// Before the first paint, so that a chosen theme does not flash; a file of its own, since the page allows no inline script.
try {
  const theme = localStorage.getItem('pgweave-theme');
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
} catch {
  // Storage is forbidden: the system's theme decides.
}
