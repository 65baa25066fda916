// Applies the remembered theme before anything is painted; a classic script, so that it runs first.
// Only a choice that differs from the system's is remembered: choosing the system's own look means
// following it again.
(() => {
  const NAME = "calotype.theme";
  const systemIsDark = matchMedia("(prefers-color-scheme: dark)");
  const read = () => {
    try {
      return localStorage.getItem(NAME);
    } catch {
      return null; // storage may be switched off: the system's theme serves
    }
  };
  let chosen = read(); // held here too: without storage a choice lasts as long as the page
  const isDark = () => (chosen ? chosen === "dark" : systemIsDark.matches);
  const apply = () => {
    if (chosen) document.documentElement.dataset.theme = chosen;
    else delete document.documentElement.dataset.theme;
    const button = document.getElementById("theme");
    if (!button) return;
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", isDark() ? "Switch to light" : "Switch to dark");
  };
  const toggle = () => {
    const wantsDark = !isDark();
    chosen = wantsDark === systemIsDark.matches ? null : wantsDark ? "dark" : "light";
    try {
      if (chosen) localStorage.setItem(NAME, chosen);
      else localStorage.removeItem(NAME);
    } catch {
      // Not remembered, but done.
    }
    apply();
  };
  apply();
  systemIsDark.addEventListener("change", apply);
  addEventListener("DOMContentLoaded", () => {
    apply();
    document.getElementById("theme").addEventListener("click", toggle);
  });
})();
