// One stream of the newest states. It comes back after each loss with growing pauses, and while there is none the page is
// told to ask for states instead, so that figures go on to move wherever a stream is refused.

import { noteServerTime } from "./time.js";

const SILENCE_MS = 25_000; // beats come every 10 s
const HIDDEN_MS = 60_000;
const POLL_MS = 15_000;
const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 60_000;

/** Gives the pause before a try: doubled each time, and up to a half off, so that a thousand browsers do not come at once. */
export function pauseMs(tries, random = Math.random()) {
  return Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** tries) * (1 - random / 2);
}

export class Live {
  #query;
  #on;
  #source = null;
  #tries = 0;
  #timers = {};
  #state = "";

  /**
   * `query` is what the stream is asked for. `on` holds `hello` (load all states now), `states` (some changed), `poll` (ask
   * for them, no stream is there), `state` (connecting, live, again, polling, paused), and `refused` (asks why).
   */
  constructor(query, on) {
    this.#query = query;
    this.#on = on;
  }

  start() {
    document.addEventListener("visibilitychange", () => this.#seen());
    // A page that is kept for the way back must not hold a connection.
    addEventListener("pagehide", () => this.#pause());
    addEventListener("pageshow", (event) => event.persisted && this.#seen());
    this.#tell("connecting");
    this.#connect();
  }

  #connect() {
    this.#end();
    const source = new EventSource(`/v1/stream?${this.#query}`);
    this.#source = source;
    this.#listen();
    source.addEventListener("hello", (event) => {
      this.#listen();
      noteServerTime(JSON.parse(event.data).time);
      this.#tries = 0;
      this.#stopPolling();
      this.#tell("live");
      this.#on.hello();
    });
    source.addEventListener("states", (event) => {
      this.#listen();
      const told = JSON.parse(event.data);
      noteServerTime(told.time);
      this.#on.states(told);
    });
    source.addEventListener("beat", (event) => {
      this.#listen();
      noteServerTime(JSON.parse(event.data).time);
    });
    // A browser that is refused says so by closing for good; a connection that was lost it would try again by itself, always
    // after the same pause.
    source.onerror = () => this.#lost(source.readyState === EventSource.CLOSED);
  }

  /** Takes a stream that says nothing for long as lost: a connection can be dead without a word. */
  #listen() {
    clearTimeout(this.#timers.silence);
    this.#timers.silence = setTimeout(() => this.#lost(false), SILENCE_MS);
  }

  #lost(refused) {
    this.#end();
    this.#tell(refused ? "polling" : "again");
    if (refused) this.#on.refused?.();
    if (!this.#timers.poll) {
      this.#timers.poll = setInterval(() => this.#on.poll(), POLL_MS);
      if (this.#tries > 0 || refused) this.#on.poll();
    }
    this.#timers.again = setTimeout(() => this.#connect(), pauseMs(this.#tries));
    this.#tries += 1;
  }

  #seen() {
    clearTimeout(this.#timers.hidden);
    if (document.hidden) {
      this.#timers.hidden = setTimeout(() => this.#pause(), HIDDEN_MS);
    } else if (this.#state === "paused") {
      this.#tries = 0;
      this.#tell("connecting");
      this.#connect();
    }
  }

  #pause() {
    this.#end();
    this.#stopPolling();
    this.#tell("paused");
  }

  #end() {
    clearTimeout(this.#timers.silence);
    clearTimeout(this.#timers.again);
    this.#source?.close();
    this.#source = null;
  }

  #stopPolling() {
    clearInterval(this.#timers.poll);
    this.#timers.poll = null;
  }

  #tell(state) {
    if (state === this.#state) return;
    this.#state = state;
    this.#on.state(state);
  }
}
