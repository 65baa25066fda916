// Takes a key out of the address (`#key=…`) before anything else happens, whatever fails later: an
// address is shared, bookmarked and shown. A classic script, so that it runs first. What to do with
// the key is main.js's to say: it finds it in `calotypeKeyGiven`, and hears of later ones.
(() => {
  const take = () => {
    const given = new URLSearchParams(location.hash.slice(1)).get("key");
    if (given === null) return;
    history.replaceState(null, "", location.pathname + location.search);
    globalThis.calotypeKeyGiven = given;
    dispatchEvent(new Event("calotype-key"));
  };
  take();
  addEventListener("hashchange", take);
})();
