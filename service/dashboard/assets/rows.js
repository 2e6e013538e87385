// All vehicles as rows: newest state, what it means, search, filter and order. Nothing here touches the page.

const REPORTS_MS = 5 * 60_000; // as the overview counts vehicles that report

const ORDER = { charging: 0, idle: 1, silent: 2 };

/** Gives an id whose order as text is that of a reader: VH-9 before VH-10. */
export function natural(id) {
  return id.toLowerCase().replace(/\d+/g, (digits) => digits.padStart(12, "0"));
}

/** Gives what a vehicle does: charging while its newest reading brought energy, silent once that is too old. */
export function stateOf(row, now) {
  if (now - row.seen > REPORTS_MS) return "silent";
  return row.kwh > 0 ? "charging" : "idle";
}

const KEYS = {
  id: (row) => row.natural,
  state: (row) => ORDER[row.state],
  soc: (row) => row.soc,
  efficiency: (row) => row.efficiency,
  energy: (row) => row.energy,
  temp: (row) => row.temp,
  seen: (row) => -row.seen,
};
export const SORTS = Object.keys(KEYS);

export class Rows {
  #rows = new Map();

  get size() {
    return this.#rows.size;
  }

  get(id) {
    return this.#rows.get(id);
  }

  /** Takes states as the API gives them; an older one changes nothing. */
  applyStates(vehicles) {
    for (const vehicle of vehicles) {
      const row = this.#row(vehicle.vehicleId);
      const seen = Date.parse(vehicle.timestamp);
      if (row.seen !== null && seen < row.seen) continue;
      row.seen = seen;
      row.soc = vehicle.soc;
      row.kwh = vehicle.kwhDeliveredDc;
      row.temp = vehicle.batteryTemp;
    }
  }

  /** Takes the balance of each vehicle over a day. */
  applyBalances(vehicles) {
    for (const vehicle of vehicles) {
      const row = this.#rows.get(vehicle.vehicleId);
      if (!row) continue; // it never reported, so it has no state to show
      row.efficiency = vehicle.efficiencyRatio;
      row.below = vehicle.belowThreshold;
      row.energy = vehicle.totalAcConsumedKwh;
    }
  }

  #row(id) {
    let row = this.#rows.get(id);
    if (!row) {
      row = {
        id, natural: natural(id), lower: id.toLowerCase(), seen: null, soc: null, kwh: null, temp: null,
        efficiency: null, below: false, energy: null, state: "silent",
      };
      this.#rows.set(id, row);
    }
    return row;
  }

  /**
   * Gives the rows to show, in order, and how many each filter would show of what the search leaves. Rows that have no
   * figure in the column of the order come last, whichever way it goes; equals are in the order of ids.
   */
  view({ search = "", filter = "", sort = "id", descending = false }, now) {
    const wanted = search.trim().toLowerCase();
    const counts = { all: 0, charging: 0, idle: 0, silent: 0, below: 0 };
    const shown = [];
    for (const row of this.#rows.values()) {
      row.state = stateOf(row, now);
      if (wanted && !row.lower.includes(wanted)) continue;
      counts.all += 1;
      counts[row.state] += 1;
      if (row.below) counts.below += 1;
      if (!filter || row.state === filter || (filter === "below" && row.below)) shown.push(row);
    }
    shown.sort(comparison(KEYS[sort] ?? KEYS.id, descending ? -1 : 1));
    return { rows: shown, counts };
  }
}

function comparison(key, way) {
  return (a, b) => {
    const left = key(a);
    const right = key(b);
    if (left !== right) {
      if (left === null) return 1;
      if (right === null) return -1;
      if (left < right) return -way;
      if (left > right) return way;
    }
    return a.natural < b.natural ? -1 : a.natural > b.natural ? 1 : 0;
  };
}
