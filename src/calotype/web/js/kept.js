// A key that the browser keeps. `storage()` is asked each time: where storage is switched off it
// throws, and the page works with the key it holds.

export class KeptKey {
  constructor(storage, name) {
    Object.assign(this, { storage, name });
  }

  /** The key, or null. */
  get() {
    try {
      return this.storage().getItem(this.name);
    } catch {
      return null;
    }
  }

  /** Keep it; null forgets it. */
  set(key) {
    try {
      if (key) this.storage().setItem(this.name, key);
      else this.storage().removeItem(this.name);
    } catch {
      // Storage is switched off.
    }
  }
}
