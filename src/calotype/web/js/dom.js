// The one way this page makes elements. Text goes in as text nodes, never as markup.

/**
 * Make an element. `on…` functions become listeners, true and false become present and absent
 * attributes, null and false children are left out, everything else is text or a node.
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, value);
    }
  }
  element.append(...children.flat().filter((child) => child !== null && child !== false));
  return element;
}

/** The element with this id; a missing one is a fault of the page and says so. */
export function byId(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`the page has no #${id}`);
  return element;
}

/** Set the text only when it differs, so that nothing is announced or repainted twice. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Make `parent`'s children those of `keys`, in order, keeping elements that are there already (and
 * with them focus, loaded pictures and running transitions). `known` maps keys to cards, each with
 * its `root`.
 */
export function reconcile(parent, known, keys, make) {
  for (const [key, card] of known) {
    if (!keys.includes(key)) {
      card.root.remove();
      known.delete(key);
    }
  }
  keys.forEach((key, index) => {
    if (!known.has(key)) known.set(key, make(key));
    const { root } = known.get(key);
    if (parent.children[index] !== root) parent.insertBefore(root, parent.children[index] ?? null);
  });
}
