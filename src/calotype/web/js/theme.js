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
  const isDark = () => {
    const chosen = read();
    return chosen ? chosen === "dark" : systemIsDark.matches;
  };
  const apply = () => {
    const chosen = read();
    if (chosen) document.documentElement.dataset.theme = chosen;
    else delete document.documentElement.dataset.theme;
    const button = document.getElementById("theme");
    if (!button) return;
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", isDark() ? "Switch to light" : "Switch to dark");
  };
  const toggle = () => {
    const wantsDark = !isDark();
    try {
      if (wantsDark === systemIsDark.matches) localStorage.removeItem(NAME);
      else localStorage.setItem(NAME, wantsDark ? "dark" : "light");
    } catch {
      document.documentElement.dataset.theme = wantsDark ? "dark" : "light";
      return; // not remembered, but done
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
