// Questions to the API. What goes wrong becomes one kind of error, in words that a page can show.

const PATIENCE_MS = 30_000;

export class ApiError extends Error {
  /** `status` is 0 where no answer came at all. */
  constructor(message, { status = 0, code = "", retryAfterS = null, body = {} } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfterS = retryAfterS;
    this.body = body;
  }
}

/** Gives the JSON at an address; parameters with the value null are left out. Raises ApiError. */
export async function ask(path, parameters = {}, { signal } = {}) {
  const response = await fetched(address(path, parameters), { signal });
  return response.json();
}

/** Gives the text at an address. Raises ApiError. */
export async function askText(path) {
  return (await fetched(path, {})).text();
}

/** Posts JSON; gives nothing back. Raises ApiError, also for 401, which then is the caller's to tell. */
export async function tell(path, body) {
  await fetched(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    stay: true,
  });
}

export function address(path, parameters) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== null && value !== undefined && value !== "") query.append(name, value);
  }
  const text = query.toString();
  return text ? `${path}?${text}` : path;
}

async function fetched(where, { signal, stay = false, ...options }) {
  const patience = AbortSignal.timeout(PATIENCE_MS);
  let response;
  try {
    response = await fetch(where, {
      ...options,
      headers: { Accept: "application/json", ...options.headers },
      signal: signal ? AbortSignal.any([signal, patience]) : patience,
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(
      error.name === "TimeoutError" ? "The service took too long to answer." : "The service does not answer.",
    );
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  if (response.status === 401 && !stay) await signIn();
  throw new ApiError(worded(response, body), {
    status: response.status,
    code: body.code ?? "",
    retryAfterS: Number(response.headers.get("Retry-After")) || null,
    body,
  });
}

function worded(response, body) {
  const detail = body.detail ?? `The service answered with status ${response.status}.`;
  // A detail may begin with the name of a field, which is written as it is.
  const named = body.field && detail.startsWith(body.field);
  const sentence = named ? detail : detail.charAt(0).toUpperCase() + detail.slice(1);
  return /[.!?]$/.test(sentence) ? sentence : `${sentence}.`;
}

/** Leaves for the page that asks for a key; it leads back here. The promise never ends: nothing here goes on. */
export function signIn() {
  const here = location.pathname + location.search;
  location.replace(`/sign-in?next=${encodeURIComponent(here)}`);
  return new Promise(() => {});
}
