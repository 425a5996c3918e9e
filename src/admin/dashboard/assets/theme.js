// Before the first paint: the theme that the person chose, else the system's.
(() => {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    let chosen = null;
    try { chosen = localStorage.getItem("tidegate-theme"); } catch { /* no storage: the system decides */ }
    const fixed = new URLSearchParams(location.search).get("theme");
    const theme = [fixed, chosen].find((name) => name === "light" || name === "dark");
    document.documentElement.dataset.theme = theme ?? (system.matches ? "dark" : "light");
  };
  apply();
  system.addEventListener("change", () => {
    apply();
    dispatchEvent(new Event("themechange"));
  });
})();
