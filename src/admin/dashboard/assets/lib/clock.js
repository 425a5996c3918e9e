// The gateway's clock. A browser's may be wrong, and plots end at the gateway's now.

/** Seconds below which a difference is that of the answer's way here. */
const SAME = 5;

let behind = 0;

/** Takes the `date` of an answer. */
export function heard(date) {
  const at = Date.parse(date ?? "") / 1000;
  if (!Number.isFinite(at)) return;
  const difference = at - Date.now() / 1000;
  behind = Math.abs(difference) < SAME ? 0 : difference;
}

/** Seconds since 1970, by the gateway. */
export const now = () => Date.now() / 1000 + behind;

/** Seconds that this browser's clock is behind; below nothing where it is ahead. */
export const lag = () => behind;
